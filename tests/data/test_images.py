"""Images as rows: folders of labels, tables, and what is wrong with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from qtune.data import prepare, read_eval
from qtune.data.batch import collate_classified
from qtune.data.classes import class_names
from qtune.data.feed import make_feed
from qtune.data.pictures import Pictures, decoded
from qtune.errors import DataError, UsageError
from qtune.plan import count_rows
from qtune.recipe.sections import Recipe
from tests.tiny import tiny_tokenizer
from tests.tiny_vision import PATTERNS, SIDE, draw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.rows import Rows

TOKENS = 17


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures(ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}), TOKENS, 3)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(folder: Path, path: str, labels: tuple[str, ...] = PATTERNS, **data: Any) -> Recipe:
    sources = {"train": [{"path": str(folder / path)}], "cache_dir": str(folder / "cache")}
    model = {"name_or_path": "x", "task": "classification", "labels": labels}
    return Recipe.model_validate({"model": model, "data": sources | data})


def faults(error: pytest.ExceptionInfo[DataError]) -> Iterator[tuple[str, str]]:
    for fault in error.value.faults:
        yield fault.place, fault.message


def labels_of(rows: Rows) -> list[str]:
    return [str(row.answer) for row in rows]


def test_a_folder_of_folders_is_a_label_each(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 4, seed=0)
    asked = recipe(tmp_path, "train")
    unnamed = asked.model_copy(update={"model": asked.model.model_copy(update={"labels": ()})})
    assert class_names(unnamed) == PATTERNS
    assert count_rows(asked.data).rows == 12
    prepared = prepare(asked, pictures)
    assert labels_of(prepared.train) == [name for name in PATTERNS for _ in range(4)]
    assert prepared.train[5].place == "train/columns/001.png"
    assert set(prepared.train.lengths) == {TOKENS + 1}
    assert prepared.train.to_dict()["supervised_tokens"] == 12
    assert "train: 12 images of 17 tokens each" in prepared.report.lines()
    again = prepare(asked, pictures)
    assert "from the cache" in again.report.cache
    assert again.train.fingerprint == prepared.train.fingerprint


def test_pixels_are_those_of_the_image_processor(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 2, seed=0)
    rows = prepare(recipe(tmp_path, "train"), pictures).train
    batch = collate_classified(rows, [0, 3, 5], pad_id=0)
    assert batch.labels.tolist() == [0, 1, 2]
    assert (batch.tokens, batch.computed, batch.supervised) == (3 * TOKENS, 3 * TOKENS, 3)
    assert list(batch.inputs()) == ["pixel_values"]
    for place, pixels in zip(batch.places, batch.inputs()["pixel_values"], strict=True):
        drawn = np.asarray(Image.open(tmp_path / place), dtype=np.float64)
        expected = torch.tensor((drawn / 255 - 0.5) / 0.5).permute(2, 0, 1)  # none is resized
        torch.testing.assert_close(pixels.double(), expected, atol=1e-5, rtol=0)


def test_a_step_has_the_images_of_its_rows(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 4, seed=0)
    asked = recipe(tmp_path, "train")
    rows = prepare(asked, pictures).train
    feed = make_feed(asked, rows, micro_batch_size=5, pad_id=0)
    (step,) = feed.steps(1)
    assert [len(batch.labels) for batch in step] == [5, 5, 2]
    places = {row.place: row.input_ids[-1] for row in rows}
    seen = {
        p: n for batch in step for p, n in zip(batch.places, batch.labels.tolist(), strict=True)
    }
    assert seen == places
    assert feed.fill() == 1.0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_names_images_beside_it(tmp_path: Path, pictures: Pictures, kind: str) -> None:
    draw(tmp_path / "data/train", 2, seed=0)
    named = [{"image": f"train/{name}/001.png", "label": name} for name in PATTERNS]
    lines = {
        "csv": ["image,label", *(f"{row['image']},{row['label']}" for row in named)],
        "jsonl": [json.dumps(row) for row in named],
    }
    (tmp_path / f"data/rows.{kind}").write_text("\n".join(lines[kind]) + "\n")
    rows = prepare(recipe(tmp_path, f"data/rows.{kind}"), pictures).train
    assert labels_of(rows) == list(PATTERNS)
    assert rows[0].place == f"data/rows.{kind}:{2 if kind == 'csv' else 1}"
    folder = prepare(recipe(tmp_path, "data/train"), pictures).train
    assert rows[1].input_ids == folder[3].input_ids


def test_folders_called_like_splits_hold_the_labels(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "all/train", 2, seed=0)
    draw(tmp_path / "all/test", 1, seed=1)
    held = {"eval": [{"path": str(tmp_path / "all"), "split": "test"}]}
    prepared = prepare(recipe(tmp_path, "all", **held), pictures)
    assert len(prepared.train) == 6
    assert prepared.eval is not None
    assert next(row.place for row in prepared.eval) == "all/test/checks/000.png"


def test_every_fault_is_told_with_its_row(tmp_path: Path, pictures: Pictures) -> None:
    folder = draw(tmp_path / "train", 2, seed=0)
    (folder / "rows/000.png").write_bytes(b"no image")
    (folder / "rows/001.png").write_bytes((folder / "checks/001.png").read_bytes()[:200])
    clear = Image.new("RGBA", (8, 8), (1, 2, 3, 100))
    clear.save(folder / "columns/000.png")
    Image.new("I;16", (8, 8)).save(folder / "columns/001.png")
    with pytest.raises(DataError) as found:
        prepare(recipe(tmp_path, "train"), pictures)
    told = dict(faults(found))
    assert told["train/rows/000.png"] == "no image that Pillow can read"
    assert told["train/rows/001.png"].startswith("the image cannot be read")
    assert told["train/columns/000.png"] == "the image is transparent (RGBA)"
    assert told["train/columns/001.png"].startswith("the image is I;16, the model sees colours")
    assert len(told) == 4


def test_rows_of_a_table_that_name_nothing(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 1, seed=0)
    table = tmp_path / "rows.csv"
    table.write_text("image,label\ntrain/rows/000.png,rows\ntrain/rows/9.png,rows\n")
    with pytest.raises(DataError) as found:
        prepare(recipe(tmp_path, "rows.csv"), pictures)
    assert list(faults(found)) == [("rows.csv:3", "there is no image 9.png")]
    table.write_text("image,label\ntrain/rows/000.png,dots\n,rows\ntrain/rows/000.png,\n")
    with pytest.raises(DataError) as found:
        prepare(recipe(tmp_path, "rows.csv"), pictures)
    told = dict(faults(found))
    assert "'dots' is none of the 3 labels" in told["rows.csv:2"]
    assert told["rows.csv:3"] == "image: is empty"
    assert told["rows.csv:4"] == "label: is empty"


def test_a_label_that_evaluation_alone_has(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "val", 1, seed=0)
    (tmp_path / "val/rows").rename(tmp_path / "val/dots")
    asked = recipe(tmp_path, "val")
    with pytest.raises(DataError, match="'dots' is none of the 3 labels") as found:
        read_eval(asked.data.train, asked, pictures)
    assert next(faults(found))[0] == "val/dots/000.png"


def test_other_files_in_a_folder_of_images(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 1, seed=0)
    (tmp_path / "train/rows/notes.txt").write_text("x")
    with pytest.raises(DataError, match="no image by its name"):
        prepare(recipe(tmp_path, "train"), pictures)
    (tmp_path / "train/rows/notes.txt").unlink()
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(DataError, match="a folder without an image"):
        class_names(recipe(tmp_path, "train", labels=()))


def test_faulty_images_may_be_skipped_up_to_a_share(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 40, seed=0)
    bad = tmp_path / "train/rows/000.png"
    bad.write_bytes(b"no image")
    prepared = prepare(recipe(tmp_path, "train", on_bad_row="skip"), pictures)
    assert len(prepared.train) == 119
    for number in (1, 2):
        (bad.parent / f"00{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="3 of 120 images cannot be read"):
        prepare(recipe(tmp_path, "train", on_bad_row="skip"), pictures)


def test_an_image_that_changes_is_not_learnt(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 1, seed=0)
    asked = recipe(tmp_path, "train")
    rows = prepare(asked, pictures).train
    Image.new("RGB", (8, 8)).save(tmp_path / "train/rows/000.png")
    with pytest.raises(DataError, match="not what was checked"):
        collate_classified(rows, [2], pad_id=0)
    assert prepare(asked, pictures).train.fingerprint != rows.fingerprint


def test_rows_of_the_other_kind_are_refused(tmp_path: Path, pictures: Pictures) -> None:
    draw(tmp_path / "train", 1, seed=0)
    with pytest.raises(UsageError, match="rows of images, and the model reads text"):
        prepare(recipe(tmp_path, "train"), tiny_tokenizer())
    (tmp_path / "rows.csv").write_text("text,label\nwavy,rows\n")
    with pytest.raises(UsageError, match="rows of text, and the model sees images"):
        prepare(recipe(tmp_path, "rows.csv"), pictures)


def test_images_are_upright_and_in_the_channels_of_the_model(tmp_path: Path) -> None:
    wide = Image.new("RGB", (8, 4), (255, 0, 0))
    turned = wide.getexif()
    turned[0x0112] = 6  # to be turned by a quarter
    wide.save(tmp_path / "a.jpg", exif=turned)
    content = (tmp_path / "a.jpg").read_bytes()
    assert decoded(content, 3, place="a").size == (4, 8)
    with pytest.raises(DataError, match="is RGB, the model sees one channel of grey"):
        decoded(content, 1, place="a")
    Image.new("LA", (8, 4), (7, 255)).save(tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    assert decoded(content, 1, place="b").getpixel((0, 0)) == 7
    assert decoded(content, 3, place="b").getpixel((0, 0)) == (7, 7, 7)


def test_noise_is_the_same_each_time(pictures: Pictures) -> None:
    one, other = pictures.noise(2), pictures.noise(2)
    assert one[0].shape == (3, SIDE, SIDE)
    assert torch.equal(torch.stack(one), torch.stack(other))
    assert not torch.equal(one[0], one[1])


def test_what_is_no_path_is_told(tmp_path: Path, pictures: Pictures) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": {"bytes": "x"}, "label": "rows"}\n')
    with pytest.raises(DataError, match="image: is no path of a file"):
        prepare(recipe(tmp_path, "rows.jsonl"), pictures)
