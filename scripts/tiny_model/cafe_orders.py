"""The fine-tuning task: a spoken café order in, one line of JSON out."""

import json
import zlib
from dataclasses import dataclass
from random import Random

from cafe_words import (
    FLAVOURS,
    FOODS,
    MILK_DRINKS,
    MILKS,
    PEOPLE,
    PLAIN_DRINKS,
    SIZES,
    counted,
    joined,
)

HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Item:
    """One line of an order: how many of what."""

    count: int
    phrase: str


@dataclass(frozen=True)
class Order:
    """Who wants what, and whether it is to go."""

    name: str
    to_go: bool
    items: tuple[Item, ...]


def held_out(order: Order) -> bool:
    """Tell whether an order is reserved for the test file; decided by its content alone.

    The name and the items decide, so neither another wording nor another sequence of the same
    order can appear in the training rows or in the pretraining text.
    """
    items = sorted(f"{item.count} {item.phrase}" for item in order.items)
    content = "|".join((order.name, *items))
    return zlib.crc32(content.encode()) % HELD_OUT_ONE_IN == 0


def draw_product(rng: Random) -> str:
    """Draw one product in the singular, such as "large oat latte"."""
    kind = rng.random()
    if kind < 0.4:
        size = rng.choice(("", *SIZES))
        milk = rng.choice(("", *MILKS))
        return " ".join(word for word in (size, milk, rng.choice(MILK_DRINKS)) if word)
    if kind < 0.65:
        size = rng.choice(("", *SIZES))
        return f"{size} {rng.choice(PLAIN_DRINKS)}".strip()
    return f"{rng.choice(('', *FLAVOURS))} {rng.choice(FOODS)}".strip()


def draw_order(rng: Random, *, reserved: bool) -> Order:
    """Draw an order from the reserved part (for the test) or from the rest."""
    while True:
        products = {draw_product(rng) for _ in range(rng.choice((1, 2, 2, 3)))}
        items = tuple(Item(rng.choice((1, 1, 2, 3, 4, 5)), product) for product in sorted(products))
        shuffled = tuple(rng.sample(items, len(items)))
        order = Order(rng.choice(PEOPLE), rng.random() < 0.5, shuffled)
        if held_out(order) == reserved:
            return order


def spoken_items(order: Order) -> str:
    """Say the items: "two large oat lattes and a blueberry muffin"."""
    return joined([counted(item.count, item.phrase) for item in order.items])


def speak(order: Order, rng: Random) -> str:
    """Say an order as a customer would."""
    what = spoken_items(order)
    greeting = rng.choice(("Hi, ", "Hello, ", "Good morning, ", "Hey there, ", ""))
    wish = rng.choice(
        (
            f"could I have {what}, please?",
            f"can I get {what}?",
            f"I'd like {what}, please.",
            f"I'll take {what}.",
            f"{what}, please.",
        )
    )
    where = rng.choice(
        ("To go.", "It's to go.", "I'll take it away.")
        if order.to_go
        else ("For here.", "I'll have it here.", "We are staying.")
    )
    who = rng.choice(
        (f"The name is {order.name}.", f"It's for {order.name}.", f"I'm {order.name}.")
    )
    first = f"{greeting}{wish}"
    sentences = rng.choice(([first, where, who], [first, who, where], [who, first, where]))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def record(order: Order) -> str:
    """Write an order down as one line of JSON."""
    items = [f"{item.count} {item.phrase}" for item in order.items]
    return json.dumps({"name": order.name, "items": items, "to_go": order.to_go})


def make_rows(count: int, rng: Random, *, reserved: bool) -> list[dict[str, str]]:
    """Make rows with different prompts; the newline is what separates prompt from completion."""
    rows: dict[str, str] = {}
    while len(rows) < count:
        order = draw_order(rng, reserved=reserved)
        rows[f"{speak(order, rng)}\n"] = record(order)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows.items()]


def as_json_lines(rows: list[dict[str, str]]) -> str:
    """Write rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
