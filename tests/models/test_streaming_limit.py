"""A base that a process has no room for trains when it is streamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qtune.models import writing
from qtune.ops.nf4 import quantize

HIDDEN, WIDTH, LAYERS, VOCABULARY = 512, 1536, 96, 512
ROOM = 112 * 2**20  # for a base of 163 MB; 48 MB are enough where this was measured

SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
from qtune import methods, models
from qtune.recipe.methods import LoraConfig
from qtune.recipe.inputs import ModelSection, QuantizationSection

def load(folder, base):
    return models.load(
        ModelSection(name_or_path=folder),
        QuantizationSection(),
        device=torch.device("cpu"),
        activations="layer",
        base=base,
    )

def train(folder, base):
    loaded = load(folder, base)
    method = methods.create(LoraConfig(rank=1, alpha=2.0, dropout=0.0), seed=0)
    method.attach(loaded.model)
    ids = torch.arange(3, 11)[None]
    loss = loaded.model(input_ids=ids, labels=ids).loss
    loss.backward()
    return [float(loss.detach()), *(float(p.grad.norm()) for p in method.parameters().values())]

def data():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))

torch.set_num_threads(1)
small, folder, base, room = *sys.argv[1:4], int(sys.argv[4])
train(small, "stream")
if room:
    limit = data() + room
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(json.dumps(train(folder, base)))
"""


def _checkpoint(folder: Path, layers: int) -> Path:
    """A random Llama stored in 4 bits; its layers share their values."""
    named: dict[str, torch.Tensor] = {}
    draw = torch.Generator().manual_seed(0)
    shapes = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    shapes |= {f"mlp.{name}_proj": (WIDTH, HIDDEN) for name in ("gate", "up")}
    for name, shape in {**shapes, "mlp.down_proj": (HIDDEN, WIDTH)}.items():
        weight = torch.randn(shape, generator=draw).mul_(0.02).bfloat16()
        packed, state = quantize(weight, quant_type="nf4", double_quant=True)
        parts = {"weight": packed} | {
            f"weight.{key}": part for key, part in state.as_dict(packed=True).items()
        }
        for layer in range(layers):
            named |= {f"model.layers.{layer}.{name}.{key}": part for key, part in parts.items()}
    norm = torch.ones(HIDDEN, dtype=torch.bfloat16)
    for layer in range(layers):
        named |= {
            f"model.layers.{layer}.{n}_layernorm.weight": norm for n in ("input", "post_attention")
        }
    table = torch.randn(VOCABULARY, HIDDEN, generator=draw).mul_(0.02).bfloat16()
    named |= {
        "model.embed_tokens.weight": table,
        "lm_head.weight": table,
        "model.norm.weight": norm,
    }
    specs = [writing.TensorSpec(name, tuple(t.shape), t.dtype) for name, t in named.items()]
    folder.mkdir()
    writing.write(folder, [specs], lambda spec: named[spec.name])
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_base_larger_than_the_room_for_it_trains_streamed_only(tmp_path: Path) -> None:
    small, large = _checkpoint(tmp_path / "small", 3), _checkpoint(tmp_path / "large", LAYERS)
    assert (large / "model.safetensors").stat().st_size > 1.4 * ROOM
    # freed memory goes back at once: what a heap keeps of it would be taken again below any limit
    heap = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **heap}

    def start(base: str, room: int) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", SCRIPT, str(small), str(large), base, str(room)]
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, env=environment)

    streamed, resident = start("stream", ROOM), start("resident", ROOM)
    output, errors = streamed.communicate()
    assert streamed.returncode == 0, errors[-2000:]
    free, errors = start("resident", 0).communicate()
    assert output.splitlines()[-1] == free.splitlines()[-1], errors[-2000:]
    _, errors = resident.communicate()
    assert resident.returncode != 0
    assert "alloc" in errors or "memory" in errors.lower()
