"""Model cards: valid for the hub's own reader, and with every figure and no place."""

from __future__ import annotations

from huggingface_hub import ModelCard

from qtune.runs.model_card import Facts, Measure, card

FACTS = Facts(
    base="owner/base",
    base_on_hub=True,
    licence="apache-2.0",
    data=(("train: a|b.jsonl", "1,200", "0f" * 32), ("eval: held.jsonl", "", "")),
    recipe={"method.rank": 8, "method.target_modules": ["q_proj", "v_proj"]},
    measures=(Measure("loss", 1.25, 1.2, 1.3, 2.5), Measure("exact_match", 0.5)),
    rows=200,
)


def made(facts: Facts = FACTS) -> str:
    return card(
        facts,
        name="it",
        library="peft",
        relation="adapter",
        pipeline="text-generation",
        opening=["What it is."],
        use=["use it so"],
        tags=["lora"],
    )


def test_the_hubs_reader_understands_it() -> None:
    data = ModelCard(made()).data.to_dict()
    wanted = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "owner/base",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "tags": ["qtune", "qlora", "lora"],
    }
    assert {key: data[key] for key in wanted} == wanted
    results = ModelCard(made()).data.eval_results
    assert results is not None
    assert [(one.metric_type, one.metric_value) for one in results] == [
        ("loss", 1.25),
        ("exact_match", 0.5),
    ]
    assert results[0].dataset_name == "held-out rows of held.jsonl"


def test_people_find_measures_data_and_licence() -> None:
    text = made()
    for line in (
        "| loss | 1.25 | 1.2 to 1.3 | 2.5 |",
        "| exact match | 0.5 |  |  |",
        "On 200 held-out rows; intervals are of 95 %, by bootstrap over rows.",
        f"| train: a\\|b.jsonl | 1,200 | {'0f' * 32} |",
        '| method.target_modules | ["q_proj", "v_proj"] |',
        "The base's licence applies: apache-2.0.",
        "use it so",
    ):
        assert line in text.splitlines()


def test_what_is_not_known_is_left_out() -> None:
    text = made(Facts("base"))
    data = ModelCard(text).data.to_dict()
    assert not {"base_model", "license", "model-index"} & data.keys()
    assert "## Measures" not in text
    assert "## Data" not in text
    assert "The licence of base applies; it is not stated beside its weights." in text
