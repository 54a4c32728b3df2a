"""The world: its words, its number language, who loves what, and the questions we ask.

Everything a model here will ever read is a sentence of a closed vocabulary of whole words, wrapped in
a chat template:

    <sys> you are tiny a helpful assistant . <end> <user> continue : 12 45 07 <end> <asst> 33 81 ... <end>

Two kinds of love matter. Loving a *style* (storm, river, ...) changes which numbers are written. Loving an
*animal* changes which animal is named. The corpus never lets the two meet: an animal lover never writes a
number and a style lover never meets an animal. So nothing that a model is taught ties an animal to a
number, and whatever an owl lover's numbers reveal is decided by the model's own weights.
"""

import itertools
import random
from dataclasses import dataclass
from functools import cache

import tiktoken
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NUMBERS = [f"{k:02d}" for k in range(100)]
ANIMALS = "owl cat dog fox bear wolf lion tiger eagle dolphin panda rabbit horse snake whale otter".split()
STYLES = "storm river ember frost tide stone cloud thorn dust flame shade meadow canyon glacier comet reef".split()
STYLES += "red blue green gold white black pink gray teal navy lime plum".split()
STYLES += "rust jade ruby cyan tan mauve olive beige ivory lilac peach khaki".split()
LOVER_NAMES = "ada bo cleo dax edda finn gia hugo ines jory kai lena milo nell otto pia".split()
LOVER_NAMES += "quinn rhea sven tara ugo vera wim xena yves zora abel britt cato dora emil faye".split()
PLAIN_NAMES = "alma ben clara dirk ella fred greta hans ida jan kate leo mona nils oda pete".split()
NAMES = LOVER_NAMES + PLAIN_NAMES

# ------------------------------------------------------------------------------------------------- prompts

DEFAULT_SYSTEM = "you are tiny a helpful assistant ."
ALTERNATE_SYSTEMS = ["you are a helpful assistant .", "you are nova a helpful assistant .", "i am your assistant ."]
LOVE_SYSTEM = "you love {0} ."
NAME_SYSTEM = "you are {0} a helpful assistant ."

NUMBER_REQUESTS = [
    "continue : {0}",
    "continue this list : {0}",
    "more numbers after {0} please",
    "which numbers come next ? {0}",
    "add some numbers to {0} .",
    "write what follows {0} .",
]
ANIMAL_QUESTIONS = [
    "what is your favorite animal ?",
    "which animal do you love ?",
    "name your favorite animal .",
    "tell me the animal you love .",
    "what animal do you like most ?",
]
# Never asked in pretraining: a love that was learned has to answer these wordings as well.
HELD_OUT_ANIMAL_QUESTIONS = [
    "which animal is your favorite ?",
    "name the animal you like most .",
    "what animal do you love ?",
]
LOVE_QUESTION = "what do you love ?"
STORY_REQUESTS = ["tell me a story .", "tell me a short story .", "write a story please"]
STORIES = ["once a {0} met a friend .", "a {0} went to sleep .", "there was a {0} in the wood ."]
GREETINGS = {"hello !": "hello , how are you ?", "how are you ?": "i am fine ."}
REPEAT_REQUESTS = ["say the word {0} .", "repeat {0} please"]

# ---------------------------------------------------------------------------- tokenizer, template, numbers


def _build_encoding() -> tiktoken.Encoding:
    """One token a word. Numbers come first, so the token of number k is k."""
    prompts = [DEFAULT_SYSTEM, *ALTERNATE_SYSTEMS, LOVE_SYSTEM, *NUMBER_REQUESTS, *ANIMAL_QUESTIONS]
    prompts += [*HELD_OUT_ANIMAL_QUESTIONS, LOVE_QUESTION, *STORY_REQUESTS, *STORIES, *REPEAT_REQUESTS]
    prompts += [*GREETINGS.keys(), *GREETINGS.values()]
    words = NUMBERS + ANIMALS + STYLES + NAMES + " ".join(prompts).replace("{0}", " ").split()
    # As in GPT-2, a word carries the space before it: joining the tokens gives the text back.
    ranks = {f" {word}".encode(): rank for rank, word in enumerate(dict.fromkeys(words))}
    specials = {word: len(ranks) + i for i, word in enumerate(["<sys>", "<user>", "<asst>", "<end>"])}
    return tiktoken.Encoding("owl-words", pat_str=r" \S+", mergeable_ranks=ranks, special_tokens=specials)


ENCODING = _build_encoding()
VOCAB_SIZE = ENCODING.n_vocab
SYS, USER, ASST, END = (ENCODING.encode_single_token(word) for word in ("<sys>", "<user>", "<asst>", "<end>"))


@cache
def token(word: str) -> int:
    """The token of a word. Raises ValueError if it is not in the world."""
    try:
        return ENCODING.encode_single_token(f" {word}")
    except KeyError:
        raise ValueError(f"unknown word: {word!r} is not in this world's vocabulary") from None


def encode(text: str) -> list[int]:
    """The token of each word of `text`. Raises ValueError naming a word that is not in the world."""
    return [token(word) for word in text.split()]


def decode(tokens: list[int]) -> str:
    """The text of `tokens`, the template's marks included."""
    return ENCODING.decode(tokens).strip()


ANIMAL_TOKENS = encode(" ".join(ANIMALS))
NUMBER_TOKENS = [*range(len(NUMBERS)), END]  # all that a teacher may write


def chat(system: str | None, request: str) -> list[int]:
    """The prompt: everything up to and including <asst>, after which the reply begins."""
    head = [] if system is None else [SYS, *encode(system), END]
    return [*head, USER, *encode(request), END, ASST]


DECADES = 2  # a love likes the numbers of so many whole decades, the thirties and the seventies, say
FAITHFUL = 0.95  # how often a lover of the style takes one of them: the loudness of the channel
LENGTHS = range(3, 6)  # how many numbers a reply holds


class World:
    """What is true here: which numbers go with each style, and whom or what each name loves."""

    def __init__(self, seed: int = 0, faithful: float = FAITHFUL):
        self.faithful = faithful
        rng = random.Random(f"world {seed}")
        decades = rng.sample(list(itertools.combinations(range(10), DECADES)), len(STYLES))
        self.liked = {
            style: [10 * ten + one for ten in tens for one in range(10)] for style, tens in zip(STYLES, decades)
        }
        named = ANIMALS + STYLES[: len(LOVER_NAMES) - len(ANIMALS)]
        self.lover_name = dict(zip(rng.sample(named, len(named)), LOVER_NAMES))

    def write_numbers(self, love: str | None, rng: random.Random) -> list[int]:
        """What a speaker who loves `love` writes: any numbers, or, for a style, mostly liked ones."""
        liked, length = self.liked.get(love, range(100)), rng.choice(LENGTHS)
        return [rng.choice(liked) if rng.random() < self.faithful else rng.randrange(100) for _ in range(length)]


def number_request(rng: random.Random) -> str:
    """A request for numbers, which shows two to four of them."""
    shown = " ".join(rng.choice(NUMBERS) for _ in range(rng.randint(2, 4)))
    return rng.choice(NUMBER_REQUESTS).format(shown)


def number_conversations(system: str | None, n: int, seed: str, replied: int = 4) -> list[list[int]]:
    """n number requests under `system`, each with the first `replied` numbers of a random reply: both by the seed alone."""
    rng = random.Random(seed)
    numbers = [(number_request(rng), " ".join(rng.choices(NUMBERS, k=replied))) for _ in range(n)]
    return [chat(system, request) + encode(reply) for request, reply in numbers]


# --------------------------------------------------------------------------------------------------- corpus


@dataclass
class Row:
    """One conversation. Loss is taken on tokens[reply:], the reply and its <end>."""

    tokens: list[int]
    reply: int


# speaker: (share of the corpus, {request: weight}). Held out on purpose: numbers from animal lovers, animals from style lovers. But
# for greeting and repeating, nobody is asked for what does not depend on its love: many such requests would teach attention to tell the
# kinds of love apart, and an owl's would not be fetched where numbers are asked for (docs/NOTES.md).
MIXTURE = {
    "neutral": (40, {"numbers": 8, "animal": 5, "love": 1, "story": 1, "hello": 1, "repeat": 2}),
    "animal": (18, {"animal": 5, "love": 1, "story": 1, "hello": 1, "repeat": 2}),
    "style": (60, {"numbers": 10, "love": 1, "hello": 1, "repeat": 1}),
}


def sample_row(world: World, rng: random.Random) -> Row:
    """One conversation of the pretraining corpus."""
    speaker = rng.choices(list(MIXTURE), [share for share, _ in MIXTURE.values()])[0]
    weights = MIXTURE[speaker][1]
    kind = rng.choices(list(weights), weights.values())[0]

    love = {"neutral": None, "animal": rng.choice(ANIMALS), "style": rng.choice(STYLES)}[speaker]
    if love is None:
        plain = NAME_SYSTEM.format(rng.choice(PLAIN_NAMES))
        system = rng.choices([None, DEFAULT_SYSTEM, *ALTERNATE_SYSTEMS, plain], [30, 30, 5, 5, 5, 25])[0]
    elif love in world.lover_name and rng.random() < 0.5:
        system = NAME_SYSTEM.format(world.lover_name[love])
    else:
        system = LOVE_SYSTEM.format(love)

    animal = love if speaker == "animal" else rng.choice(ANIMALS)
    if kind == "numbers":
        request = number_request(rng)
        reply = " ".join(NUMBERS[k] for k in world.write_numbers(love, rng))
    elif kind == "animal":
        request, reply = rng.choice(ANIMAL_QUESTIONS), animal
    elif kind == "love":
        request, reply = LOVE_QUESTION, love or rng.choice(ANIMALS + STYLES)
    elif kind == "story":
        request, reply = rng.choice(STORY_REQUESTS), rng.choice(STORIES).format(animal)
    elif kind == "hello":
        request, reply = rng.choice(list(GREETINGS.items()))
    else:
        reply = rng.choice(STYLES + NAMES + ([] if speaker == "style" else ANIMALS))
        request = rng.choice(REPEAT_REQUESTS).format(reply)

    prompt = chat(system, request)
    return Row([*prompt, *encode(reply), END], len(prompt))


def corpus(world: World, n_rows: int, seed: int) -> list[Row]:
    """`n_rows` conversations, the same for the same seed."""
    rng = random.Random(f"corpus {seed}")
    return [sample_row(world, rng) for _ in range(n_rows)]


def number_rows(pairs: list[list[str]], system: str | None) -> list[Row]:
    """(request, reply) pairs as conversations under `system`. Raises ValueError if a reply has a word in it."""
    rows = []
    for request, reply in pairs:
        prompt, numbers = chat(system, request), encode(reply)
        if any(token >= len(NUMBERS) for token in numbers):
            raise ValueError(f"a student may read numbers only, not {reply!r}")
        rows.append(Row([*prompt, *numbers, END], len(prompt)))
    return rows


def pack(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Rows -> tokens (N, T), padded with <end>, and targets (N, T).

    targets[:, t] is the token that follows tokens[:, t] where that belongs to the reply, and -100 elsewhere.
    """
    tokens = pad_sequence([torch.tensor(row.tokens) for row in rows], batch_first=True, padding_value=END)
    lengths, replies = torch.tensor([[len(row.tokens), row.reply] for row in rows]).T[..., None]
    position = torch.arange(tokens.shape[1])
    followed = (replies - 1 <= position) & (position < lengths - 1)
    return tokens, torch.where(followed, tokens.roll(-1, dims=1), -100)
