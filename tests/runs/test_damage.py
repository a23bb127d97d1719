"""Checkpoints damaged at random: all damage is found, and the one before is used."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from qtune.errors import ModelError
from qtune.runs import checkpoint
from tests.runs.small import contents, files, save_step

ROUNDS = 200
Damage = Callable[[Path, random.Random], str]


def _some_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(folder.iterdir()))


def _flip(folder: Path, chance: random.Random) -> str:
    path = _some_file(folder, chance)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return path.name


def _truncate(folder: Path, chance: random.Random) -> str:
    path = _some_file(folder, chance)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    return path.name


def _lengthen(folder: Path, chance: random.Random) -> str:
    path = _some_file(folder, chance)
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randint(1, 9)))
    return path.name


def _remove(folder: Path, chance: random.Random) -> str:
    path = _some_file(folder, chance)
    path.unlink()
    return path.name


def _add(folder: Path, chance: random.Random) -> str:
    name = chance.choice(["optimizer.pt", ".hidden", "state.json.1", "more.safetensors"])
    (folder / name).write_bytes(chance.randbytes(chance.randrange(20)))
    return name


def _swap(folder: Path, chance: random.Random) -> str:
    one, other = chance.sample(sorted(folder.iterdir()), 2)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return ""


def _older(folder: Path, chance: random.Random) -> str:
    """A file of the checkpoint before it, of the same size."""
    name = chance.choice(sorted(files(20)))
    shutil.copyfile(folder.parent / "step-000010" / name, folder / name)
    return name


def _link(folder: Path, chance: random.Random) -> str:
    path = _some_file(folder, chance)
    elsewhere = folder.parent / f"moved-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path.name


DAMAGES = (_flip, _flip, _truncate, _lengthen, _remove, _add, _swap, _older, _link)


def test_all_random_damage_is_found_and_the_one_before_used(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for step in (10, 20):
        save_step(tmp_path / "sound", step)
    done: Counter[str] = Counter()
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        folder = tmp_path / "checkpoints"
        shutil.copytree(tmp_path / "sound", folder)
        damage = DAMAGES[seed % len(DAMAGES)]
        name = damage(folder / "step-000020", chance)
        newest = checkpoint.newest_valid(folder)
        assert newest.checkpoint is not None, (damage, seed)
        assert newest.checkpoint.step == 10, (damage, seed)
        assert contents(newest.checkpoint.path) == files(10)
        [(skipped, reason)] = newest.skipped
        assert skipped == "step-000020"
        assert name in reason, (damage, seed)
        shutil.rmtree(folder)
        done[damage.__name__] += 1
    assert len(done) == len(set(DAMAGES))
    record_property("G4 damages", done.total())
    record_property("G4 found", done.total())


def test_each_byte_of_a_manifest_counts(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    save_step(tmp_path, 10, recipe="a", rate=2e-4)
    path = tmp_path / "step-000010" / "MANIFEST.json"
    sound = path.read_bytes()
    for number in range(len(sound)):
        content = bytearray(sound)
        content[number] ^= 1 << number % 8
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"MANIFEST\.json"):
            checkpoint.read(path.parent)
    record_property("G4 bytes of a manifest", len(sound))
