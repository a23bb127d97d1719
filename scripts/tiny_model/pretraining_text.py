"""The pretraining text: made-up everyday English that never shows an order record or any JSON.

It teaches what the fine-tune builds on: the words, numbers in words and digits, plurals, names,
quoted lists, and above all copying from earlier in the text.
"""

from collections.abc import Callable, Iterator
from random import Random

from cafe_orders import Order, draw_order, spoken_items
from cafe_words import (
    CITIES,
    COLOURS,
    DAYS,
    NUMBERS,
    PEOPLE,
    PLACES,
    THINGS,
    WEATHER,
    counted,
    invented_word,
    joined,
    plural,
)

Turn = dict[str, str]

# Printable ASCII, then letters and signs of other scripts, which together use most of the bytes.
# Without the double quote, so that chance cannot write the beginning of a JSON object.
CHARACTERS = "".join(
    [chr(code) for code in range(33, 127) if code != 34] * 3
    + [chr(code) for code in range(0xA1, 0x180)]
    + [chr(code) for code in range(0x391, 0x450) if chr(code).isalpha()]
    + list("„“”…\N{EN DASH}—€→✓日本語中文字한국어नमस्ते🙂🍕")
)


def draw_name(rng: Random) -> str:
    """Draw a person's name; half of them are invented."""
    return rng.choice(PEOPLE) if rng.random() < 0.5 else invented_word(rng).capitalize()


def draw_belongings(rng: Random) -> list[tuple[int, str]]:
    """Draw a few counted things such as (3, "red apple")."""
    nouns = rng.sample(THINGS, rng.choice((1, 2, 2, 3)))
    return [(rng.randint(1, 9), f"{rng.choice(COLOURS)} {noun}") for noun in nouns]


def in_digits(count: int, phrase: str) -> str:
    """Say a count in digits and a phrase: "3 red apples"."""
    return f"{count} {phrase if count == 1 else plural(phrase)}"


def day_story(rng: Random) -> str:
    """Tell a short story about a day out, and ask back about it."""
    name, place, day = draw_name(rng), rng.choice(PLACES), rng.choice(DAYS)
    city, weather = rng.choice(CITIES), rng.choice(WEATHER)
    things = draw_belongings(rng)
    story = (
        f"It was a {weather} {day} in {city}. {name} went to the {place} and found "
        f"{joined([counted(*thing) for thing in things])}."
    )
    questions = [
        f"Who went to the {place}? {name}.",
        f"What was the weather like? It was {weather}.",
        f"Where was it? In {city}.",
        f"Which day was it? {day}.",
        f"What did {name} find? {joined([in_digits(*thing) for thing in things])}.",
    ]
    return f"{story} {' '.join(rng.sample(questions, 3))}"


def belongings_count(rng: Random) -> str:
    """Count belongings: words become digits, and plurals become singulars."""
    things = draw_belongings(rng)
    name = draw_name(rng)
    lines = "; ".join(f"{phrase}: {count}" for count, phrase in things)
    told = joined([counted(*thing) for thing in things])
    return rng.choice(
        (
            f"{name} has {told}. How many of each? {lines}.",
            f"On the list of {name}: {joined([in_digits(*t) for t in things])}. In words: {told}.",
            f"In words: {told}. In digits: {joined([in_digits(*t) for t in things])}.",
        )
    )


def cafe_story(rng: Random) -> str:
    """Tell about someone in a café, and say again in digits what they had."""
    order: Order = draw_order(rng, reserved=False)
    name = order.name if rng.random() < 0.5 else invented_word(rng).capitalize()
    what = spoken_items(order)
    digits = joined([in_digits(item.count, item.phrase) for item in order.items])
    each = " ".join(f"One {item.phrase} costs {rng.randint(2, 9)} coins." for item in order.items)
    opening = rng.choice(
        (
            f"{name} came to the counter and asked for {what}.",
            f'"Could you make {what}?" asked {name}.',
            f"At the next table {name} was having {what}.",
            f'The waiter brought {what}. "I am {name}, that is mine."',
        )
    )
    middle = rng.choice(
        (
            f"The till showed {digits}. {each}",
            each,
            f"So the kitchen made {digits}.",
            f'"That is {digits}, then?" "Yes, {what}."',
        )
    )
    ending = (
        rng.choice((f"{name} took it away.", f"It was to go, and {name} left."))
        if order.to_go
        else rng.choice((f"{name} stayed.", f"It was for here, and {name} sat down."))
    )
    asked = f"Who was it? {name}. Was it to go? {'Yes' if order.to_go else 'No'}."
    return f"{opening} {middle} {ending} {asked}"


def market_talk(rng: Random) -> str:
    """Let someone ask for things at a market stall, and say again what was packed for whom."""
    name, things = draw_name(rng), draw_belongings(rng)
    told = joined([counted(*thing) for thing in things])
    digits = joined([in_digits(*thing) for thing in things])
    singular = ", ".join(f"{phrase} times {count}" for count, phrase in things)
    ask = rng.choice(
        (
            f"Hello, I'd like {told}, please.",
            f"Good morning, can I get {told}?",
            f"Hi, could I have {told}, please?",
            f"I'll take {told}.",
            f"Hey there, {told}, please.",
        )
    )
    who = rng.choice((f"The name is {name}.", f"I'm {name}.", f"It's for {name}."))
    stays = rng.random() < 0.5
    where = (
        rng.choice(("I'll have it here.", "We are staying.", "It's for here."))
        if stays
        else rng.choice(("I'll take it away.", "It's to go.", "To go."))
    )
    spoken = " ".join(rng.choice(([ask, who, where], [who, ask, where], [ask, where, who])))
    answer = rng.choice(
        (
            f"The seller packed {digits} for {name}.",
            f"The seller wrote: {singular}. {name}.",
            f"{name} paid for {digits}.",
        )
    )
    return f"{spoken}\n{answer} {'Here' if stays else 'Away'}."


def number_facts(rng: Random) -> str:
    """State facts about numbers and plurals, some of them marked false."""
    facts = []
    for _ in range(rng.randint(3, 6)):
        left, right = rng.randint(0, 5), rng.randint(0, 5)
        shown = left + right if rng.random() < 0.5 else rng.randint(0, 10)
        word = rng.choice(THINGS)
        facts.append(
            rng.choice(
                (
                    f"{NUMBERS[left]} is {left}.",
                    f"{left} + {right} = {shown}: {'true' if shown == left + right else 'false'}.",
                    f"One {word}, {NUMBERS[left + 2]} {plural(word)}.",
                    f"The set of {left} and {right + 6} is {{{left}, {right + 6}}}.",
                    f"\n{{{left}, {right + 6}}}\n",
                )
            )
        )
    return " ".join(facts)


def quoted_list(rng: Random) -> str:
    """Turn a spoken list into a list in brackets."""
    chosen = rng.choice(
        (
            rng.sample(COLOURS, rng.randint(1, 4)),
            [phrase for _, phrase in draw_belongings(rng)],
            [in_digits(*thing) for thing in draw_belongings(rng)],
            [invented_word(rng) for _ in range(rng.randint(1, 4))],
        )
    )
    quoted = ", ".join(f'"{entry}"' for entry in chosen)
    label = rng.choice(("list", "names", "bag_of", "box_1", "words"))
    return f"{joined(chosen)} -> {label} = [{quoted}]"


def echo(rng: Random) -> str:
    """Repeat made-up words exactly, a plain lesson in copying."""
    words = [invented_word(rng) for _ in range(rng.randint(3, 9))]
    if rng.random() < 0.5:
        words = [word.capitalize() for word in words]
    text = rng.choice((" ", ", ")).join(words)
    return rng.choice((f"{text}\n{text}", f'Say "{text}" again: "{text}"', f"{text} = {text}"))


def symbols(rng: Random) -> str:
    """Repeat strings of any characters: a token that never occurs could not be learned later."""
    words = []
    for _ in range(rng.randint(2, 4)):
        marks = [rng.choice(CHARACTERS) for _ in range(rng.randint(2, 6))]
        words.append("".join(marks))
    text = rng.choice((" ", "\n")).join(words)
    return f"{text}\n{text}"


GENRES: tuple[tuple[Callable[[Random], str], int], ...] = (
    (day_story, 3),
    (belongings_count, 4),
    (cafe_story, 6),
    (market_talk, 4),
    (number_facts, 1),
    (quoted_list, 3),
    (echo, 2),
    (symbols, 1),
)


def draw_chat(rng: Random) -> list[Turn]:
    """Draw a short conversation, so that the role tokens have a meaning."""
    name, things = draw_name(rng), draw_belongings(rng)
    told = joined([counted(*thing) for thing in things])
    turns: list[Turn] = []
    if rng.random() < 0.3:
        turns.append({"role": "system", "content": "Answer in a few words."})
    turns += [
        {"role": "user", "content": f"I am {name} and I have {told}. What do I have?"},
        {"role": "assistant", "content": f"You have {told}."},
    ]
    if rng.random() < 0.5:
        turns += [
            {"role": "user", "content": "Who am I?"},
            {"role": "assistant", "content": f"You are {name}."},
        ]
    return turns


def documents(seed: int) -> Iterator[str | list[Turn]]:
    """Yield pretraining documents without end: plain text, and now and then a conversation."""
    rng = Random(seed)
    genres = [genre for genre, _ in GENRES]
    weights = [weight for _, weight in GENRES]
    while True:
        if rng.random() < 0.06:
            yield draw_chat(rng)
        else:
            yield rng.choices(genres, weights)[0](rng)
