"""Plain transformers + PEFT on a 4-bit checkpoint, checkpointed as their guides say.

python scripts/bench/gpu_peer.py MODEL LENGTH STEPS
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM

WARM_UP = 2


def main() -> None:
    """Train on random rows and print tokens/s and peak memory."""
    folder, length, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": device})
    model = prepare_model_for_kbit_training(
        model, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    settings = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    model = get_peft_model(model, settings)
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    seconds = []
    for _ in range(steps):
        ids = torch.randint(3, model.config.vocab_size, (1, length), generator=generator)
        labels = ids.clone()
        labels[:, : length // 4] = -100
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_reserved() if device.type == "cuda" else None
    speed = length / statistics.median(seconds[WARM_UP:] or seconds)
    print(json.dumps({"tokens_per_second": round(speed, 1), "peak_reserved_bytes": peak}))


if __name__ == "__main__":
    main()
