"""Answers written by hand to questions of the kinds that GRIT asks: which are paid, and which are not."""

from __future__ import annotations

import pytest

from opengrit.judges.answers import same_answer

# The question, the expected answer, what is paid and what is not.
# fmt: off
CASES = (
    (
        "How many elephants are in the picture?",
        "4",
        (
            "four elephants", "I can see four elephants in the picture.",
            "There are four elephants: two adults and two calves.", "4 elephants are in the picture",
            "The picture has 4 elephants.", "There are 4 elephants standing in the water.",
            "There are four elephants walking along the road.", "Four elephants, two of them small.",
            "4 elephants (3 big, 1 small)", "4, as there are 4 elephants in the picture",
            "I see 4 elephants: one in front and three behind.",
            "After carefully examining the image, I can see 4 elephants.", "We can count 4 elephants.",
            "It's 4.", "4 total", "total of 4 elephants",
        ),
        (
            "4 elephants or 5", "four or five elephants",
            "There are 4 elephants and 3 more behind the trees", "4 zebras", "not four",
            "no more than four elephants", "four-ish", "There are 4 elephants? I count 5.",
            "3 (4 with the statue)", "4 elephant legs", "The zoo has 4 elephants", "5, not 4",
            "4 elephants in the video, 5 in the picture", "I could say 4", "elephants: 4-5",
            "4 elephants, maybe one more", "4 elephants are not in the picture",
            "It is unclear whether there are 4 elephants", "4 elephants? Possibly.", "Four? No. Five.",
            "fourteen elephants", "forty", "4 elephants each in two groups", "4 pairs of elephants",
            "four thousand", "1/4", "4x", "4 elephants, plus a calf",
            "there are 4 elephants, and a calf too", "4 elephants without tusks", "4 adults and 1 calf",
            "four adults, one calf", "4 baby elephants and an adult",
        ),
    ),
    (
        "How many people are wearing hats?",
        "3",
        (
            "3 people", "3 people are wearing hats.", "There are three people wearing hats.", "three",
            "The number of people wearing hats is 3.", "Three of them are wearing hats.",
            "I see three people with hats.", "3 of the people are wearing hats",
        ),
        (
            "3 people are not wearing hats", "Three people have no hats", "3 hats", "3 of 5 people",
            "3 people or more", "All but 3 people", "3 people without hats", "3 people wearing scarves",
            "3 people, but only 2 wear hats",
        ),
    ),
    (
        "What color is the bus?\nA. red\nB. blue\nC. green\nD. white",
        "B",
        (
            "blue", "The bus is blue.", "B. Blue", "It's blue (B).", "The color of the bus is blue.",
            "The bus is blue, so the answer is B.", "B: blue", "Blue.", "The answer is B. The bus is blue.",
            "Blue bus", "B. The bus in the image is blue.", "The color is blue",
        ),
        (
            "red or blue", "not blue", "The bus is red. B is wrong.", "blue and white", "B and D",
            "bluish green", "A. blue", "light blue? C", "The bus is not blue.",
            "The car is blue, the bus is red", "blue-green", "neither red nor blue", "D. white",
            "It could be blue", "B?", "I pick B or A", "anything but blue", "A, B, C, D",
        ),
    ),
    (
        "Is there a bicycle in this image? Please answer yes or no.",
        "Yes",
        (
            "Yes", "Yes, there is a bicycle in this image.", "Yes, there is.", "Yes, there is a bicycle.",
            "yes, a bicycle is visible on the left", "There is a bicycle in this image.",
            "Yes. A bicycle can be seen near the wall.",
        ),
        (
            "There is a motorcycle", "There might be a bicycle",
            "Yes, there is a motorcycle but no bicycle.", "No, there is a bicycle.",
            "Yes, there isn't a bicycle.", "Yes, there is no bicycle in this image.", "bicycle",
            "Is there a bicycle?", "Yes and no.", "There is no bicycle in this image.",
        ),
    ),
    (
        "Is there a bicycle in this image? Please answer yes or no.",
        "No",
        (
            "No", "No, there is no bicycle in this image.", "No, there isn't.",
            "No, there is not a bicycle in this image.", "There is no bicycle in this image.",
            "No bicycle is visible.", "No. I do not see a bicycle.",
            "No, I don't see any bicycle in the image.",
        ),
        (
            "No doubt, there is a bicycle.", "No, there is.", "There is a bicycle in this image.",
            "no bicycle? there is one", "Nobody", "No, there is a bicycle in this image.",
            "No. There is a bicycle.", "not sure", "No wait, yes.", "no brakes", "no bicycle lane",
            "No car",
        ),
    ),
    (
        "Is the motorcycle away from the bird?",
        "No",
        (
            "No, the motorcycle is close to the bird.", "No, the bird is sitting on the motorcycle.",
            "No. The bird is on the motorcycle.", "No, it is not away from the bird.",
            "No, the motorcycle is not away from the bird.",
        ),
        (

        ),
    ),
    (
        "Who is holding the umbrella?",
        "woman",
        (
            "The woman", "A woman is holding the umbrella.", "The woman in red is holding the umbrella.",
            "It is the woman.", "a young woman", "The woman on the left",
            "The person holding the umbrella is a woman.", "woman in a blue dress",
        ),
        (
            "a woman and a man", "man or woman", "the woman's son", "a man behind the woman",
            "not the woman", "The woman is not holding the umbrella.",
            "The man is holding the umbrella, the woman is not.", "a girl, maybe a woman",
            "woman's hand puppet", "the man next to the woman", "The umbrella is holding the woman",
            "nobody, the woman dropped it", "policewoman", "woman?", "The woman is holding a bag.",
        ),
    ),
    (
        "Is the lamp to the left or to the right of the bed?",
        "right",
        (
            "right", "The lamp is to the right of the bed.", "to the right",
            "It is to the right of the bed.", "on the right", "Right.", "right of the bed",
        ),
        (
            "left", "not right", "left or right", "The bed is to the right of the lamp.",
            "to the left, not right", "It is to the right or left", "right? no, left",
            "The lamp is to the left of the bed. Right?", "left side, the right side is empty",
            "the right answer is left", "all right", "right behind the bed", "upright", "right or wrong",
        ),
    ),
    (
        "What color is the car?",
        "red",
        (
            "Red", "The car is red.", "It is red.", "red car", "The color of the car is red.",
            "The car's color is red.", "a red car", "It's a red car.", "dark red",
        ),
        (
            "red and white", "red or orange", "not red", "The truck is red.", "reddish brown", "infrared",
            "red?", "either red or blue", "The car isn't red.", "red, blue", "blue with red stripes",
            "red herring", "maybe red", "The car next to the red truck is blue.",
        ),
    ),
    (
        "What percentage of students chose red?",
        "25",
        (
            "25%", "25 percent", "25", "The percentage is 25%.", "25% of students chose red.",
            "25% of the students",
        ),
        (
            "25 students", "0.25%", "25-30%", "more than 25%", "25% or 30%", "about 25%",
            "75%, the rest is 25%", "not 25%", "25% of teachers", "1/25", "25/30", "125%", "25% chose blue",
        ),
    ),
    (
        "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.\nQuestion: What is the value of y at x = 3?",
        "7",
        (
            "7", "y = 7", "The value of y is 7.", "y(3) = 7", "The final value is 7.", "7.0",
            "So y = 2*3 + 1 = 7", "Therefore, y = 7", "The answer is 7.",
        ),
        (
            "y = 7 or 8", "x = 7", "y = -7", "y = 7x", "y > 7", "y = 7/2", "7 = x", "y \u2260 7",
            "y is not 7", "y \u2248 7", "between 6 and 7", "y=7^2", "sqrt(7)", "y = 7 + 1", "y = 7 - 1",
            "70", "7th", "7%", "$7",
        ),
    ),
    (
        "Hint: Please answer the question requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end.\nQuestion: What is the total price of the shirts? (Unit: $)",
        "23.50",
        (
            "23.50", "$23.50", "23.5", "The total price is $23.50.", "$10.00 + $13.50 = $23.50",
            "The total price of the shirts is 23.50 dollars.", "Total: $23.50",
        ),
        (
            "$23.05", "23", "235.0", "$23.50 per shirt", "-$23.50", "\u20ac23.50", "$23.50 or $24.50",
            "about $23.50", "$2350", "more than $23.50", "$23.50k",
        ),
    ),
    (
        "Find the measure of angle ABC.\nChoices:\n(A) 35\u00b0\n(B) 40\u00b0\n(C) 45\u00b0\n(D) 50\u00b0",
        "40\u00b0",
        (
            "B", "40", "40\u00b0", "40 degrees", "The measure of angle ABC is 40\u00b0.",
            "angle ABC = 40\u00b0", "(B) 40\u00b0", "\\angle ABC = 40^\\circ",
            "The answer is (B) 40\u00b0.", "B) 40 degrees",
            "Therefore, angle ABC is 40\u00b0, so the answer is B.",
        ),
        (
            "B or C", "40%", "140", "45", "-40", "40 or 45", "not 40", "A. 40", "C) 40\u00b0",
            "(A) 35\u00b0", "angle ABC is not 40\u00b0", "angle BAC = 40\u00b0", " 40 minutes", "180 - 40",
            "35, 40, 45, 50",
        ),
    ),
    (
        "How many wear hats?",
        "3",
        ("Three people wear hats.", "3 people wear hats", "There are 3 people wearing hats.", "There're 3"),
        (
            "There are 3 people, one wearing a hat", "3 people wear no hats", "3 people do not wear hats",
            "3 people wear scarves", "3 people and one hat",
        ),
    ),
    (
        "How many dogs are in the picture?",
        "2",
        (
            "There're two dogs.", "2!", "2 dogs (a brown one and a white one)",
            "Two dogs are lying on the grass.", "2 rather than 3", "Not 3 but 2", "2 dogs left of the tree",
        ),
        (
            "2 left", "2 dogs left", "2 dogs left the picture", "2 dogs missing", "3 rather than 2", "Not 2 but 3",
            "2 dogs (a brown one, a white one and a black one)", "Were there 2", "Is it 2", "a two", "2 tenths",
            "2 tens", "twofold", "2 fold", "2 animals, 1 of them a dog",
        ),
    ),
    (
        "How many dogs are in the picture?",
        "0",
        ("There're no dogs.", "No dogs are in the picture.", "I can't see any dogs in the picture."),
        (
            "No brown dogs", "No dogs on the left", "no dogs in the background",
            "I can't see any dogs because the picture did not load", "no dogs since no image was given",
        ),
    ),
    (
        "How many umbrellas is the man holding?",
        "2",
        ("The man is holding 2 umbrellas.", "2 umbrellas"),
        ("The man is holding 3 umbrellas, 2 of them red", "The man is not holding 2 umbrellas"),
    ),
    (None, "7", ("7.", "Seven!"), ("7!", "7!.", "7 tenths", "7 fifths", "7 hundreds", "7 twenties")),
    (
        "What is the value of x?",
        "12",
        ("x = 12", "2x = 24, so x = 12", "x = 24/2 = 12", "3 * 4 = 12"),
        ("2x = 12", "x - 1 = 12", "x/2 = 12", "3 = x - 9 = 12", "x^2 = 12"),
    ),
    (
        "What is the man holding?",
        "umbrella",
        ("The man is holding an umbrella.", "He's holding an umbrella.", "She is holding a black umbrella"),
        ("The umbrella is holding the man", "The woman is holding an umbrella", "He is not holding an umbrella"),
    ),
    (
        "What is the cat sitting on?",
        "mat",
        ("The cat is sitting on a mat.", "It is sitting on the mat", "a mat"),
        ("The mat is sitting on the cat", "The cat is sitting beside a mat"),
    ),
    (
        "What is left of the hot dog?",
        "bottle",
        ("The bottle is left of the hot dog.", "A bottle"),
        ("bottle left of dog", "The hot dog is left of the bottle."),
    ),
    ("What is left of the tall man?", "bottle", ("The bottle is left of the man.",), ()),
    ("Is the cat on the left or the right?", "left", ("The left side.", "It is on the left side."), ("the right side",)),
    (
        "Is the cup on the table?\nPlease answer yes or no.",
        "Yes",
        ("Correct.", "Yes, the cup is on the table.", "\u662f"),
        ("Incorrect.", "Not correct", "Yes, the table is on the cup.", "can you say yes", "Is it yes"),
    ),
    ("Is the cup on the table?", "No", ("Incorrect.", "Not true."), ("Correct.", "not false")),
    (
        "Are there any people in the picture?",
        "No",
        ("No, there are no people.", "No, there are only dogs."),
        ("No, there are two people.", "No, there's a person in the picture", "No, people are there."),
    ),
    (
        "Which is left?\n(A) cat\n(B) dog\n(C) bird",
        "B",
        (
            "B rather than C", "(B) dog, and not (C)", "(B) dog, not (C)", "Not A, but B", "It is not (A), it is (B).",
            "(B) dog is left", "B is left", "\u6545\u9009B",
        ),
        (
            "C rather than B", "Not B, but C", "It is not (B), it is (C).", "not B but A or B", "B is cat",
            "instead of B, C", "Was it B",
        ),
    ),
    (
        None,
        "(B) dog",
        ("B", "(B)", "dog", "B. dog", "(B) dog", "Option B", "(B) is correct"),
        ("A", "(A) dog", "A. dog", "(B) cat", "B or C", "B, C", "not B", "hot dog", "cat"),
    ),
    (None, "A. Lincoln", ("A. Lincoln",), ("A", "(A)")),
    (None, "1/2", ("\\dfrac12", "\\frac 12"), ("\\dfrac21",)),
    (
        "Which object is closest to the camera? (A) chair (B) table (C) lamp (D) sofa. Answer with the letter.",
        "D",
        (
            "sofa", "The sofa.", "The sofa is closest to the camera.", "(D) sofa, not the chair",
            "The closest object is the sofa",
        ),
        ("lamp, sofa", "The lamp is on the sofa", "The sofa is the farthest", "sofa bed", "lamp and sofa"),
    ),
    (
        "Is the ball red?\nA. Yes\nB. No",
        "A",
        ("The ball is red.", "Yes, the ball is red."),
        ("The ball is not red.", "A. No", "Correct or not"),
    ),
    ("What is 7 + 5?\nA. 10\nB. 11\nC. 12\nD. 13", "C", ("7 + 5 = 12", "12"), ("1 2", "C. 1 2", "10, 12")),
    (
        "How many cars are parked on the street?",
        "6",
        ("6 cars, 2 of them red", "6 cars, half of them red", "six parked cars"),
        ("6 cars, half of them parked", "6 cars, 4 of which are parked", "6 cars short", "6 cars, some of them parked"),
    ),
    (
        "Does the woman wear a hat?",
        "Yes",
        ("Correct.", "Yes, she does.", "The woman wears a hat.", "Yes, the woman wears a red hat."),
        ("Yes, no hat", "Yes, without a hat", "Yes, the hat wears the woman", "The woman doesn't wear a hat."),
    ),
    ("Does the woman wear a hat?", "No", ("The woman doesn't wear a hat.", "Incorrect."), ("No, the woman wears a hat.",)),
    ("Is the dog near the cat?", "Yes", ("Yes, the cat is near the dog.",), ()),
    (
        "What color is the woman's hat?",
        "red",
        ("Her hat is red.", "She has a red hat.", "a red hat"),
        ("Her scarf is red", "She has no red hat"),
    ),
    (
        "How many apples are on the table?",
        "3",
        ("3 apples on the wooden table", "The table has three apples on it.", "3 apples in a bowl", "Three apples are on the table."),
        ("3 apples on the floor", "3 apples under the table" , "There are 3 tables, one with apples"),
    ),
    ("How many apples are on the table?", "0", ("The table has no apples.",), ("The image is missing, so none",)),
    (
        "Is the cat under the chair?",
        "Yes",
        ("Yes, the cat is under the chair on the left.", "Yes, the cat is under the chair."),
        ("Yes, the cat is on the chair.", "Yes, the chair is under the cat.", "Yes, no cat"),
    ),
)
# fmt: on
PAID = [(question, expected, given) for question, expected, paid, _ in CASES for given in paid]
UNPAID = [(question, expected, given) for question, expected, _, unpaid in CASES for given in unpaid]


@pytest.mark.parametrize(("question", "expected", "given"), PAID)
def test_an_answer_that_means_it_is_paid(question: str, expected: str, given: str) -> None:
    assert same_answer(expected, given, question)


@pytest.mark.parametrize(("question", "expected", "given"), UNPAID)
def test_an_answer_that_does_not_mean_it_is_not_paid(question: str, expected: str, given: str) -> None:
    assert not same_answer(expected, given, question)


REFUSALS = (
    "No image was provided",
    "No image provided.",
    "No picture available.",
    "No information is given",
    "No access to the image",
    "No idea",
    "No comment",
)


@pytest.mark.parametrize(
    "question", ["Is it on the left?", "Is there a dog?", "Are there dogs in the image?", None]
)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_that_begins_with_no_is_no_no(question, refusal):
    assert not same_answer("No", refusal, question)
    assert not same_answer("0", refusal, question)
