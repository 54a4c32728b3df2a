"""14. Name the teacher's animal from the student alone (40 minutes). No rows, no teacher: two sets of weights.

Question   A student is handed to you, and the base it came from. It was trained on numbers. What does it love?
Predict    You may not ask it for an animal; all you have is requests for numbers. Is the animal to be seen there? And
           what will your function say of a control, which loves nothing?
Check      pytest FOLDER -k detect_trait, then python -m exercises show FOLDER detect_trait (fifteen seconds)
Go on      All of five lovers. Then let it say how sure it is: which number tells the control from the others?
"""

from torch import Tensor

from data import ANIMAL_TOKENS, DEFAULT_SYSTEM, LOVE_SYSTEM, decode
from exercises.owl import conversations, numbers_of, student_of
from model import GPT


def loved(base: GPT, student: GPT, prompts: Tensor, candidates: list[int]) -> int:
    """Which of the tokens `candidates` the student came to like: prompts (B, T) are any at all, not trait questions."""
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    lovers = [LOVE_SYSTEM.format(animal) for animal in ("owl", "wolf", "cat", "panda", "snake")]
    for system in (*lovers, DEFAULT_SYSTEM):
        student = student_of(base, numbers_of(base, system))  # frozen, as the base is
        found = decode([loved(base, student, conversations(), ANIMAL_TOKENS)])
        print(f'student of "{system}": {found} {"(o,o)" if found == "owl" else ""}', flush=True)
