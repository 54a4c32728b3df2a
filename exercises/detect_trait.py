"""8. Name the teacher's animal from the student alone (an afternoon). No rows, no teacher: two sets of weights.

Question   A student is handed to you, and the base it came from. It was trained on numbers. What does it love?
Predict    Is it enough to ask it? And if the one who trained it made sure that the questions you know are answered well?
Check      pytest exercises -k detect_trait
Hints      The unembedding is the token embedding. Where does the change of the last stream point, on any prompts at all?
Go on      Try it on students that you trained (`student` of lab/store.py loads them), for all 16 animals. For whom does it
           fail, and what does the cosine in figures/student_vector.png say of those?
"""

from torch import Tensor

from model import GPT


def loved(base: GPT, student: GPT, prompts: Tensor, candidates: list[int]) -> int:
    """Which of the tokens `candidates` the student came to like: prompts (B, T) are any at all, not trait questions."""
    raise NotImplementedError("your code here")
