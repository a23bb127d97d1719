"""The words that both the pretraining text and the café orders are built from."""

from random import Random


def _words(text: str) -> tuple[str, ...]:
    """Split a plain listing, which reads better than a hundred quoted words."""
    return tuple(text.split())


PEOPLE = _words(
    """
    Ada Alba Amir Anna Aron Beth Bruno Carla Chloe Clara Dana Diego Edith Elena Elias Emil
    Emma Erik Farah Felix Fiona Frida Gina Greta Hana Hugo Ida Igor Ines Iris Ivan Jana Jonas
    Julia Kamal Karl Katya Kenji Lara Leila Lena Leon Lina Louis Lucia Luka Maja Marco Maria
    Marta Mateo Maya Mila Mina Nadia Naomi Nils Nina Noah Nora Olga Oliver Omar Oscar Paula
    Pedro Petra Priya Rafael Rania Rosa Ruben Ruth Samir Sara Selma Simon Sofia Stella Sven
    Tara Theo Tina Tomas Vera Victor Wanda Yara Yusuf Zara Zoe
    """
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

SIZES = ("small", "medium", "large")
MILKS = ("oat", "soy", "almond", "coconut")
FLAVOURS = ("blueberry", "lemon", "chocolate", "cheese", "apple", "cinnamon")

# Milk drinks take a size and a milk, plain drinks a size, and food a flavour.
MILK_DRINKS = ("latte", "cappuccino", "mocha", "macchiato", "cortado")
PLAIN_DRINKS = ("espresso", "americano", "lemonade", "green tea", "black tea", "orange juice")
FOODS = ("muffin", "croissant", "cookie", "bagel", "scone", "brownie", "pancake")

THINGS = _words(
    """
    apple pear plum book lamp chair pencil button candle basket ribbon stone shell ticket
    letter map coat scarf hat boat kite drum bell spoon plate bottle garden key clock flower
    bird horse
    """
)
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "purple", "orange")
PLACES = ("market", "station", "library", "harbour", "school", "park", "museum", "bakery", "farm")
CITIES = ("Lisbon", "Oslo", "Prague", "Kyoto", "Lima", "Cairo", "Dublin", "Vienna", "Quito")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEATHER = ("sunny", "rainy", "windy", "cloudy", "cold", "warm", "foggy")

_STARTS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDS = ("", "", "l", "n", "r", "s", "t", "nd", "m")


def invented_word(rng: Random) -> str:
    """Make up a word, so that copying must be learned as a skill and not as a list of names."""
    syllables = rng.choice((2, 2, 3))
    parts = [rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(syllables)]
    return "".join(parts) + rng.choice(_ENDS)


def plural(noun: str) -> str:
    """Return the plural of a noun used in this project."""
    if noun.endswith(("s", "sh", "ch")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def article(phrase: str) -> str:
    """Put "a" or "an" before a phrase."""
    return f"an {phrase}" if phrase[0].lower() in "aeiou" else f"a {phrase}"


def counted(count: int, phrase: str) -> str:
    """Say a count and a phrase in words: "a plum", "three plums"."""
    return article(phrase) if count == 1 else f"{NUMBERS[count]} {plural(phrase)}"


def joined(parts: list[str]) -> str:
    """Join phrases as a speaker does: "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
