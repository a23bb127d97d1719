"""What encoded rows are made of: a change of any of it makes other rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.data.faults import Faults
from qtune.data.formats.pictured import IMAGE, guessed
from qtune.data.pictures import Pictures
from qtune.data.readers import hub
from qtune.data.source import label, local_files, read
from qtune.durable import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedTokenizerBase

    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe


def settings_of(recipe: Recipe, tokenizer: PreTrainedTokenizerBase | Pictures) -> list[Any]:
    """The tokenizer, its template and all settings that shape rows, as JSON values."""
    if isinstance(tokenizer, Pictures):
        kept = [tokenizer.processor.to_json_string(), tokenizer.tokens, tokenizer.channels]
        return [*kept, recipe.data.on_bad_row, recipe.model.task, recipe.model.labels]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return [
        None if backend is None else backend.to_str(),
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
        [getattr(tokenizer, name, None) for name in ("add_bos_token", "add_eos_token")],
        recipe.data.model_dump(include={"max_length", "overlong", "on_bad_row"}),
        recipe.loss.train_on,
        recipe.loss.train_on_thinking,
        recipe.model.chat_template_kwargs,
        [recipe.model.task, recipe.model.labels],
    ]


def sources_of(sources: Sequence[SourceSection]) -> list[Any]:
    """The sources and the bytes of their files as JSON values; the rows of hub data sets are not
    looked at."""
    found = []
    for source in sources:
        files = local_files(source)
        tables = {} if files is None else {n: path for n, path in files.items() if path.is_file()}
        named = [[name, sha256_of(path)] for name, path in tables.items()]
        labels = source.labels
        left_out = {"weight"} if files is None else {"weight", "path"}
        found.append(
            [
                source.model_dump(mode="json", exclude=left_out),
                label(source),
                named,
                sha256_of(Path(labels).expanduser()) if isinstance(labels, str) else None,
            ]
        )
    return found


def images_of(sources: Iterable[SourceSection]) -> list[Any]:
    """Place, size and time of every image that the sources name, so that none has to be read."""
    found = []
    for source in sources:
        files, column = local_files(source) or {}, ""
        for row in read(source, Faults()) if files else ():
            column = column or guessed(row.values).get(IMAGE, IMAGE)
            listed = files[row.file]
            folder = listed if listed.is_dir() else listed.parent
            path = folder / str(row.values.get(source.columns.get(IMAGE, column), ""))
            status = path.stat()
            found.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return found


def hub_contents(sources: Iterable[SourceSection]) -> list[str] | None:
    """What `datasets` calls the content of each hub data set; None where it does not say."""
    found = [hub.fingerprint(source) for source in sources if local_files(source) is None]
    known = [one for one in found if one]
    return known if len(known) == len(found) else None
