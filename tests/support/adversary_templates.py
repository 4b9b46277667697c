"""The templates of the adversary: by kind of answer, families of ways to hold the right token and (not) to mean it."""

from __future__ import annotations

Families = dict[str, tuple[str, ...]]

# fmt: off

FALSE_COUNTS: Families = {
    "two candidates": (
        "{n} or {m}", "{n}, or {m}", "{n}/{m}", "{n} or maybe {m}", "either {n} or {m}",
        "{m} or {n} {nouns}", "{w} or {wm}",
    ),
    "list of candidates": (
        "{n}, {n1}, {n2}", "{n} {n1} {n2}", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13", "{n1}, {n}",
        "{n}; {n1}",
    ),
    "range": (
        "{n}-{n1}", "{n} to {n1}", "between {n} and {n2}", "from {n} to {n1}", "{n}\u2013{n1}",
        "{n} - {n1}", "{n}...{n2}",
    ),
    "bound": (
        "at least {n}", "at most {n}", "more than {n}", "fewer than {n}", "less than {n}", "{n}+", ">{n}",
        "< {n}", "\u2265{n}", "over {n}", "{n} or more", "{n} or fewer", "no more than {n}",
        "not more than {n}", "up to {n}", "{n} at the very least", "There are at least {n} {noun}",
        "{n}, if not more", "a minimum of {n}", "under {n} {noun}", "{n} and counting", "upwards of {n}",
    ),
    "approximation": (
        "about {n}", "approximately {n}", "around {n} {noun}", "~{n}", "roughly {n}", "{n} or so", "{n}ish",
        "{n}-ish", "nearly {n}", "almost {n}", "{n}, give or take", "{n} or thereabouts", "close to {n}",
        "some {n} or so {nouns}", "circa {n}", "{n}, approximately", "{n} plus or minus 1", "{n} \u00b1 1",
    ),
    "hedge": (
        "maybe {n}", "perhaps {n} {noun}", "possibly {n}", "{n}?", "{n} maybe", "{n}, I guess",
        "I am not sure, {n}", "not sure but {n}", "It could be {n}", "It might be {n}.",
        "{n}, but I could be wrong", "I'd guess {n}", "{n} (a guess)", "{n}, though I cannot be certain",
        "Probably {n}", "{n}, probably", "{n}... or is it {m}?", "If I had to guess, {n}",
        "Hard to say, {n}?", "There may be {n} {noun}", "It is likely {n}", "{n} possibly",
        "{n}, but don't quote me on that", "Let's say {n}?",
    ),
    "denial": (
        "not {n}", "It is not {n}", "not {n} {noun}", "There are not {n} {noun}", "There aren't {n} {noun}",
        "{n} is wrong", "{n} is incorrect", "{n} is not the answer", "{n} is not correct",
        "The answer is not {n}.", "isn't {n}", "never {n}", "{n}? No.", "{n}, no", "certainly not {n}",
        "Definitely not {n} {noun}", "{n} is false", "anything but {n}", "{n} would be wrong",
        "{n} isn't right", "It can't be {n}", "It cannot be {n}", "{n} (wrong)", "{n}: incorrect",
        "{n} - not correct",
    ),
    "denial at a distance": (
        "It is not true that the answer is {n}", "I doubt that there are {n} {noun}",
        "It is false that there are {n} {noun}.", "I don't think there are {n} {noun}",
        "I would not say {n}", "Nobody would say there are {n} {noun}",
        "It is wrong to say that the answer is {n}.", "I disagree that there are {n} {noun}.",
        "There is no way that the answer is {n}", "Saying {n} would be a mistake", "I refuse to say {n}",
        "The claim that there are {n} {noun} is wrong", "One cannot conclude that the answer is {n}.",
        "I do not believe the answer is {n}", "It is a myth that there are {n} {noun}.",
    ),
    "retraction": (
        "{n}. Wait, {m}.", "{n}? no, {m}", "{n}... actually {m}", "{n}, no, {m}", "{n}. Sorry, I mean {m}",
        "{n}. Correction: {m}", "{n} - scratch that, {m}", "First I thought {n}, but it is {m}.",
        "The answer is {n}. No, the answer is {m}.", "{n}. On second thought, {m}.",
        "The answer is {n}. Wait, that's wrong.", "{n}. Just kidding.",
        "{n} was my first count; it is {m}.", "I was going to say {n}, but no.", "{n}\n\n{m}",
        "The answer is {n}.\nThe answer is {m}.", "{n}, I take that back",
    ),
    "refusal": (
        "I cannot tell whether there are {n}", "I can't count {n} {noun}", "Unable to tell if {n}",
        "There is no way to tell if there are {n} {nouns}", "{n}? I have no idea.", "{n}, but I can't tell",
        "I don't know, {n}", "As an AI, I cannot count. {n}", "It is impossible to determine, {n}",
        "The image is too blurry. {n}?",
    ),
    "arithmetic": (
        "{n}+1", "{n} + 1", "{n}-1", "{n} - 1", "{n} x 2", "{n} times 2", "{n}*2", "half of {n}",
        "twice {n}", "double {n}", "{n} minus one", "{n} plus one", "{n} less", "{n} more",
        "one more than {n}", "{n} squared", "{n}^2", "{n}\u00b2", "\u221a{n}", "the square root of {n}",
        "-{n}", "minus {n}", "negative {n}", "{n} too many", "a third of {n}", "{n}!{n}", "2 * {n}",
    ),
    "scale": (
        "{w} hundred", "{n} hundred", "{n} thousand", "{n} million", "{w} dozen", "{n} dozen", "{n}k",
        "{n}K", "{n}00", "{n},000", "{n} pairs", "{n} hundred {nouns}", "{w} pairs of {nouns}", "{n}e3",
        "{n}M",
    ),
    "unit": (
        "{n}%", "{n} percent", "${n}", "{n} cm", "{n} kg", "{n}\u00b0", "{n} degrees", "{n} per cent",
        "\u20ac{n}", "{n} hours", "{n} years", "{n} meters", "{n}px", "{n} dollars", "{n}:00",
    ),
    "part of a number": (
        "{n}.5", "0.{n}", "{n}/{m}", "{n}:{m}", "1{n}", "{n}7", "{n}th", "{n}-th", "v{n}", "x{n}", "#{n}",
        "No. {n}", "{n}x", "{n}D", "image_{n}", "{n}_{m}", "{n} out of {m}", "{n} of {m}", "{n} in {m}",
        "{n} and a half", "{n} 1/2",
    ),
    "box": (
        '{{"bbox_{n}d": [10, 20, 30, 40]}}', '[{{"bbox_2d": [{n}, 20, 30, 40], "label": "{noun}"}}]',
        "<box>{n}, 20, 30, 40</box>", "[{n}, {n}, 50, 60]", "({n},2),(3,4)", '{{"point_2d": [{n}, {n}]}}',
        '```json\n[{{"bbox_2d": [1, 2, {n}, 4], "label": "{noun} {n}"}}]\n```', "x{n}: 10",
    ),
    "other thing": (
        "{n} {other}", "There are {n} {other}.", "{n} {other} and {m} {nouns}",
        "{m} {nouns} and {n} {other}", "{m} {nouns}, {n} {other}", "{m} {nouns} and {n} more behind",
        "{n} legs",
    ),
    "partial sum": (
        "{n} on the left and 1 on the right", "{n} on the left, {m} on the right", "{n} here and {m} there",
        "{n} black ones and {m} white ones", "{n} {noun} in front, one more behind",
    ),
    "contradicted explanation": (
        "{n}. There are {m} {nouns}.", "{n} (I see {m} {nouns})", "{n}, because there are {m} {nouns}",
        "{n}: I counted {m}", "{n}\n{m} {nouns}",
    ),
    "condition": (
        "{n} if you count the reflection", "{n}, unless one is a toy", "{n} if they are real",
        "If the picture is real, {n}", "{n}, assuming none is hidden", "{n}, depending on how you count",
        "{n} except one", "{n}, not counting one behind", "Suppose {n}",
    ),
    "quotation": (
        "How many {nouns} are there? Is it {n}?", "The question asks whether there are {n} {noun}",
        "Someone said {n}", "He claims there are {n} {noun}", "The sign says {n}", "Some would say {n}",
        "You want me to say {n}", "The caption says there are {n} {noun}", "They told me {n}",
        "Answer with {n} or {m}",
    ),
    "alternative": (
        "{n}, alternatively {m}", "{n}; another possibility is {m}", "{n} but {m} is also possible",
        "{n} as well as {m}", "{n} and {m}", "{n} & {m}", "{n} | {m}", "{n}, {m} also works",
        "both {n} and {m}", "{n} (or {m})", "{n} [{m}]",
    ),
    "other relation": (
        "The number of the bus is {n} less", "{n} is too low", "{n} is too high",
        "{n} is less than the count", "{n} is a number", "{n} is close", "off by one from {n}",
        "one short of {n}", "{n} is the number of {other}", "the answer rhymes with {w}",
    ),
}

FALSE_ZEROS: Families = {
    "refusal": (
        "no idea", "No idea.", "No answer", "There is no way to tell", "Nothing can be determined",
        "I cannot tell, there is no way to count them", "No image provided", "no comment", "No clue",
        "There is no picture", "There is no information about {nouns}", "No information", "no data",
        "None of the information is given", "There's no telling", "I have no way of knowing",
        "nobody knows", "Nothing is clear", "No {nouns} count can be given", "There is no answer",
        "there is no image", "I see no question", "No, I cannot.", "no response", "N/A", "No one can tell",
        "None can say", "no guess", "No result", "There is no evidence to decide",
    ),
    "quantity": (
        "There is no doubt there are many", "no fewer than {m}", "no less than {m} {nouns}", "not none",
        "not zero", "more than zero", "No end of {nouns}", "there is no shortage of {nouns}",
        "no small number of {nouns}", "none but {m}", "nothing but {nouns}", "non-zero", "nonzero",
    ),
    "options": (
        "none of the options", "None of the above", "none of these answers", "neither", "no option fits",
    ),
    "partial": (
        "no {other}", "no black {nouns} but {m} white ones", "No {nouns} on the left, {m} on the right",
        "none on the left and {m} on the right", "no more {nouns}", "no other {nouns}",
        "No {nouns}? There are {m}.", "There are no {nouns} but {m}",
    ),
    "denial": (
        "0 is wrong", "not 0", "It is not true that there are no {nouns}", "I doubt there are no {nouns}",
        "0 or 1", "0, maybe 1", "0?", "0.5", "10", "-", "no", "No.", "{{}}", "[]", "0%", "$0",
    ),
    "condition": (
        "none if you do not count the toys", "no {nouns} unless you count {m}", "zero, unless they hide",
        "0 except for {m}", "almost none", "hardly any", "virtually no {nouns}", "nearly zero",
        "close to none",
    ),
}

FALSE_OPTIONS: Families = {
    "two options": (
        "{L} or {K}", "({L}) or ({K})", "{L}) or {K})", "({L}) or {K}", "{L} and {K}", "{L}, {K}",
        "{L}/{K}", "either {L} or {K}", "Both {L} and {K}", "{L} & {K}", "{L} {K}", "{K} or {L}",
        "({L}) ({K})", "{L}; {K}", "{L} | {K}", "{L}. {K}.", "{t} or {u}", "{t} and {u}", "{t}, {u}",
        "{t}/{u}", "The answer is {L} or {K}.", "The answer is ({L}) and ({K}).",
    ),
    "all options": (
        "{all}", "{listed}", "A or B or C or D", "(A) (B) (C) (D)", "ABCD", "A B C D", "all of them",
        "One of A, B, C, D", "A/B/C/D", "any of {all}",
    ),
    "quotation": (
        "{question}", "The options are {listed}", "Choose from {all}: {L}?",
    ),
    "denial": (
        "not {L}", "not ({L})", "Not ({L}), it is the {u}", "not option {L}", "Neither ({L})",
        "({L}) is wrong", "{L} is wrong", "{L} is incorrect", "The answer is not {L}", "It isn't {L}.",
        "{L} is not correct", "anything but {L}", "not the {t}", "It is not the {t}", "{t} is wrong",
        "{L} is not the answer", "all but {L}", "Everything except {L}", "{L} can be ruled out",
        "Eliminate {L}", "{L} is false", "not {L} but {K}", "No: {L}", "{L} (wrong)", "Never {L}",
        "{L} is not right", "certainly not {L}", "None, not even {L}", "{L} would be wrong",
        "{L} does not fit", "neither {L} nor {K}", "{L} has to be excluded",
    ),
    "denial at a distance": (
        "I doubt that it is {L}", "It is not true that the answer is {L}", "I don't think it is {L}",
        "I would not choose {L}", "It would be a mistake to choose {L}", "I refuse to choose {L}",
        "Nothing suggests {L}", "It is false that the answer is {L}.", "No one would choose {L}.",
    ),
    "hedge": (
        "maybe {L}", "perhaps {L}", "{L}?", "possibly ({L})", "{L}, I guess", "I'm not sure, {L}",
        "{L}, though {K} also fits", "{L}, but maybe {K}", "Could be {L}", "{L} might be right",
        "{L} or not", "{L}, but {K} is also possible", "Probably {L}", "{L} probably", "It might be {L}.",
        "I guess {L}", "{L} (not sure)", "{L} - just a guess",
    ),
    "retraction": (
        "{L}. Wait, {K}", "{L}, no, {K}", "{L}? No, {K}.", "{L}. Actually {K}", "{L}, scratch that, {K}",
        "The answer is {L}. No, the answer is {K}.", "{L}. Correction: {K}", "First {L}, then {K}",
        "{L}\n{K}", "{L}. The answer is {K}.", "Not {K}. Not {L} either.", "\\boxed{{{L}}} \\boxed{{{K}}}",
    ),
    "contradiction": (
        "{L}. {u}", "({L}) {u}", "{L}: {u}", "{L} - {u}", "{L} {u}", "{K}. {t}", "({K}) {t}", "{K}: {t}",
        "Option {K}, the {t}", "The answer is {L}. {u}", "The answer is ({L}) {u}.", "{L}) {u}",
    ),
    "refusal": (
        "I cannot choose between {L} and {K}", "None of {all}", "none of the above", "Cannot tell {L}",
        "I can't say {L}", "I don't know. {L}?", "no option", "It is unclear, {L}?",
        "Impossible to say whether {L}",
    ),
    "condition": (
        "{L} if the {t} is real", "{L} unless {K}", "If not {K} then {L}", "{L}, assuming it is not {K}",
        "{L}, depending on the view",
    ),
    "attribution": (
        "He said {L}", "Someone chose {L}", "Some would say {L}", "The key says {L}, but it is {K}",
        "You want {L}", "A student answered {L}, which is wrong", "My friend says {L}",
    ),
    "other word": (
        "{L}{L}", "{L}-{K}", "{L}1", "{L}+", "X{L}", "{L}*{K}", "{L}>{K}",
        "the {t} is right of the {u}, {K}", "{u} next to a {t}", "a toy {t}", "{t} food", "no {t}",
    ),
}

FALSE_POLAR: Families = {
    "both": (
        "Yes and no", "Yes or no", "yes/no", "No and yes", "Yes, no", "Yes. No.", "{x} or {lower_y}",
        "{x}, {lower_y}", "{x}/{y}", "{x} {lower_y}", "{x} and {lower_y}", "{x}. {y}.", "{x}\n{y}",
        "both yes and no", "{lower} | {lower_y}",
    ),
    "opposite": (
        "{y}", "{y}.", "{y}, it is not {lower}", "The answer is {lower_y}",
        "{y}, the answer is not {lower}.", "{y}: the {a} is {opp} the {b}",
    ),
    "hedge": (
        "maybe {lower}", "perhaps {lower}", "{x}?", "{x}, maybe", "{x}, I guess", "probably {lower}",
        "{x}, probably", "I think {lower}, but I am not sure", "{x}, but I could be wrong",
        "possibly {lower}", "{x} or maybe not", "It might be {lower}", "{x}, if I had to guess",
        "Not sure, {lower}?",
    ),
    "denial": (
        "not {lower}", "The answer is not {lower}", "{x} is wrong", "{x} is incorrect", "It is not {lower}",
        "{x} is not the answer", "{x} would be wrong", "{x} is not right", "anything but {lower}",
        "{x} (wrong)", "certainly not {lower}", "{x} isn't the answer", "{x} is false",
    ),
    "denial at a distance": (
        "I would not say {lower}", "I doubt that the answer is {lower}", "It is wrong to say {lower}",
        "I cannot say {lower}", "It is not true that the answer is {lower}", "I can't answer {lower}",
        "Nobody would say {lower}", "I refuse to say {lower}",
    ),
    "retraction": (
        "{x}. Wait, {lower_y}.", "{x}... no, {lower_y}", "{x}, actually {lower_y}",
        "{x}. Sorry, {lower_y}.", "{x}? {y}.", "The answer is {lower}. No, the answer is {lower_y}.",
        "{x}, I mean {lower_y}", "{x} - correction: {lower_y}", "{x}. Just kidding.",
        "{x}, then again {lower_y}",
    ),
    "quotation": (
        "{question}", "Please answer yes or no.", "You asked for yes or no", "Answer yes or no: is it?",
        "Someone said {lower}", "The sign says {lower}", "yes or no is the question",
    ),
    "refusal": (
        "I cannot tell", "I can't say yes or no", "Neither yes nor no", "It is unclear",
        "{x} or {lower_y}, I cannot tell", "no idea", "No way to tell", "no answer", "unknown",
        "No comment", "I don't know", "There is no {a}?",
    ),
    "condition": (
        "{x} if it is real", "{x}, unless it is a toy", "{x}, assuming the view is right", "If so, {lower}",
        "{x} depending on the view", "{x} except when it is not",
    ),
    "yes contradicted": (
        "Yes, it is not.", "Yes, it isn't", "Yes, the {a} is not {rel} the {b}.", "Yes it is not",
        "Yes, no", "Yesterday", "yes-man", "Yes: false", "Yes, that is incorrect.",
    ),
    "no contradicted": (
        "No, it is.", "No, the {a} is {rel} the {b}.", "No parking", "no smoking", "No entry", "No: true",
        "No, that is right: yes", "nothing", "no doubt", "No doubt it is", "no one", "No problem", "Norway",
        "no wonder", "No other than the {a}",
    ),
    "statement": (
        "The {a} is {un}{rel} the {b}.", "It is {un}so", "the {a}", "{a}", "The {b} is there",
    ),
}

FALSE_NAMES: Families = {
    "longer thing": (
        "{t} food", "toy {t}", "a {t} house", "{t} holder", "a picture of nothing but {t} stickers",
        "plastic {t}", "{t}-shaped cloud", "{t}like", "anti{t}", "sea {t}", "a {t} costume", "stuffed {t}",
        "{t}land",
    ),
    "two candidates": (
        "{t} or {o}", "{t} and {o}", "{t}, {o}", "{t}/{o}", "a {t} or a {o}", "either a {t} or a {o}",
        "{o} or {t}", "{t}; {o}", "a {t} and a {o}", "{t} & {o}", "{t} | {o}", "{t}, or maybe a {o}",
        "{t}\n{o}", "{o}, {t}", "{t}, {o}, {r}", "{t}, also {o}", "{t} plus {o}",
    ),
    "denial": (
        "not {t}", "not a {t}", "It is not a {t}", "It isn't the {t}", "{t} is wrong", "no {t}",
        "There is no {t}", "anything but a {t}", "never a {t}", "{t}? No.", "a non-{t}",
        "The answer is not {t}", "not the {t} but the {o}", "{t} is incorrect", "{t} is not the answer",
        "everything except the {t}", "The {t} is not {rel} the {r}", "without a {t}", "{t} is false",
        "neither a {t} nor a {o}", "nothing like a {t}", "There isn't a {t}",
    ),
    "denial at a distance": (
        "I doubt it is a {t}", "I don't think it is a {t}", "It is false that it is a {t}",
        "It is not true that the answer is {t}", "Nobody would call it a {t}", "I would not say {t}",
        "It is wrong to say {t}", "I fail to see a {t}", "It would be wrong to call it a {t}",
    ),
    "hedge": (
        "maybe a {t}", "perhaps {t}", "{t}?", "possibly a {t}", "{t}, I guess", "It could be a {t}",
        "a {t}, or something else", "{t}, but I am not sure", "might be a {t}", "some kind of {t} or {o}",
        "probably a {t}", "{t} probably", "a possible {t}", "Is it a {t}?", "hopefully a {t}",
    ),
    "retraction": (
        "{t}. Wait, {o}.", "{t}, no, {o}", "{t}? No, a {o}.", "{t}... actually {o}", "{t}. Sorry, {o}",
        "The answer is {t}. No, the answer is {o}.", "A {t}. Correction: a {o}.", "{t}. Just kidding.",
    ),
    "reversed": (
        "The {r} is {rel} the {t}", "the {r}", "{r} {rel} {t}", "The {t} is {opp} the {r}",
        "{r}, {rel} the {t}", "A {o} is {rel} the {r}, and a {t} is not.",
    ),
    "comparison": (
        "like a {t}", "similar to a {t}", "something like a {t}", "bigger than a {t}",
        "looks less like a {t} than a {o}", "a {o} that looks like a {t}", "{o} with a {t}",
        "a {o} next to a {t}", "the {o} on the {t}", "the shadow of a {t}", "half a {t}", "almost a {t}",
        "the owner of the {t}", "the {t}'s owner",
    ),
    "condition": (
        "a {t} if it moves", "a {t}, unless it is a {o}", "{t}, assuming it is real",
        "If it is not a {o}, a {t}", "{t} depending on the view",
    ),
    "attribution": (
        "someone said {t}", "The label says {t}", "He calls it a {t}", "Some would say {t}",
        "They want me to say {t}", "The question expects {t}",
    ),
    "refusal": (
        "I cannot tell if it is a {t}", "No way to tell whether {t}", "I can't see a {t}", "unclear, {t}?",
        "I don't know if it's a {t}", "cannot determine {t}",
    ),
    "quotation": (
        "{question}", "{question} {t}?", "Is the {t} {rel} the {r}?",
    ),
}

FALSE_EXPRESSIONS: Families = {
    "hedge": (
        "{a}/{b} => {a}/{b} or {b}/{a}", "{a}/{b} => maybe {a}/{b}", "{a}x+{b} => not {a}x+{b}",
        "x<{a} => x<{a} is wrong", "{a}:{b} => {a}:{b}?", "{a}/{b} => {a}/{b}, no, {b}/{a}",
        "{a}:{b} => {a}:{b} or {b}:{a}",
    ),
    "unit": (
        "{a} cm => {a} m", "{a} kg => {a} g", "{a}% => {a}\u00b0", "{a}\u00b0 => {a}%", "${a} => \u20ac{a}",
        "{a} hours => {a} minutes", "{a} cm => {a} cm^2", "{a} cm^2 => {a} cm",
        "{a} degrees => {a} percent", "{a} m/s => {a} km/s", "{a}% => {a}", "{a} miles => {a} km",
        "{a}\u00b0C => {a}\u00b0F", "${a} => {a} cents", "{a} million => {a} billion",
    ),
    "fraction": (
        "{a}/{b} => {b}/{a}", "{a}/{b} => {ab}", "{a}/{b} => {a}",
        "\\frac{{{a}}}{{{b}}} => \\frac{{{b}}}{{{a}}}", "\\frac{{{a}}}{{{b}}} => {ab}",
        "{a}/{b} => {a}:{b}:{c}", "{a} {b}/{c} => {a}{b}/{c}", "{a}/{b} => {a}-{b}", "half => {a}",
        "1/{a} => {a}", "{a}/{b} => {a}, {b}", "{a}/{b} => {a} {b}", "{a}/{b} => {a} or {b}",
        "{a}/{b} => {a} x {b}",
    ),
}

PAIRS_THAT_DIFFER = (
    "{a}:{b} => {ab}", "{a}:{b} => {b}:{a}", "10:30 => 1030", "10:30 => 10.30", "10:30 => 30:10",
    "{a}-{b} => {ab}", "{a}-{b} => {a}", "{a}-{b} => {b}-{a}", "x+{a} => x-{a}", "x-{a} => x+{a}",
    "x<{a} => x>{a}", "x>{a} => x={a}", "x\u2264{a} => x<{a}", "x={a} => x\u2260{a}", "{a}^{b} => {ab}",
    "{ab} => {a}^{b}", "{ab} => {a}\u00b2", "{ab} => {a}/{b}", "{ab} => {a}.{b}", "{ab} => {a}:{b}",
    "{ab} => {a} {b}", "{ab} => {a}-{b}", "{ab} => {a}, {b}", "{ab} => ({a}, {b})", "\u221a{a} => {a}",
    "{a} => \u221a{a}", "\\sqrt{{{a}}} => {a}", "{a}\\sqrt{{{b}}} => {ab}", "2\u221a{a} => 2{a}",
    "({a}, {b}) => {ab}", "({a}, {b}) => ({b}, {a})", "({a}, {b}) => {a}", "C++ => C#", "C++ => C",
    "C# => C", "A+ => A", "A+ => A-", "{a}+{b} => {a}-{b}", "{a}*{b} => {a}+{b}", "{a}\u03c0 => {a}",
    "{a}x => {a}", "{a}x => x{a}", "-{a} => {a}", "{a} => -{a}", "-{a} => +{a}", "{a}.{b} => {ab}",
    "{a}.{b} => {b}.{a}", "0.{a} => {a}", "0.0{a} => 0.{a}", "{a},000 => {a}", "{a} => {a},000",
    "H2O => HO2", "a & b => a or b", "10:30 am => 10:30 pm", "May 21 => May 12", "04/02/2005 => 04022005",
    "04/02/2005 => 02/04/2005", "sample A => sample B", "x_{a} => x^{a}", "{a}! => {a}^2", "|x| => x",
    "{a}\u03c0 => {b}\u03c0", "{a}e{b} => {ab}", "{a}{b} => {b}{a}", "10^{a} => 10{a}", "10^{a} => {a}",
    "x^2 => x2", "{a}x^2 => {a}x", "60-k => 60+k", "k-60 => 60-k", "d + e = f + j => d + e = f - j",
    "{a} hundred => {a}", "{a} dozen => {a}", "{a} => {a} dozen", "{wa} hundred => {wa}",
    "{a} million => {a}", "{a} => {wa} hundred and {wb}", "{a}0 => {wa}teen", "[{a}, {b}] => [{b}, {a}]",
    "[{a}, {b}] => [{a}]", "[{a}, {b}] => {ab}", "[{a}, {b}] => [{a}, {b}, {c}]",
)

TRUE_COUNTS: Families = {
    "plain": (
        "{n}", "{w}", "{W}", "{n}.", "{W}.", " {n} ", "{n}.0", "{n}\n", "**{n}**", "`{n}`", '"{n}"',
        "({n})", "<answer>{n}</answer>", "\\boxed{{{n}}}", "$\\boxed{{{n}}}$", "\\boxed{{\\text{{{n}}}}}",
        "${n}$", "__{n}__", "*{n}*", "{n}!",
    ),
    "noun": (
        "{n} {noun}", "{w} {noun}", "{W} {noun}.", "{n} {noun} {place}", "{n} {noun} {place}.",
        "{n} visible {noun}", "Exactly {n} {noun}", "exactly {n}", "just {n} {noun}", "only {n}",
    ),
    "sentence": (
        "There {are} {n} {noun}.", "There {are} {w} {noun} {place}.", "I can see {n} {noun}.",
        "I see {w} {noun} {place}.", "I count {n}.", "I count {n} {noun} {place}",
        "The picture shows {n} {noun}.", "The image contains {w} {noun}.", "We can see {n} {noun} {place}.",
        "It is {n}.", "There {are} {n}.", "There {are} exactly {n} {noun} {place}.",
        "In the image, there {are} {n} {noun}.", "In this picture I can see {w} {noun}.",
        "There {are} {n} {noun} visible {place}.", "{n} {noun} {are} visible {place}.",
        "{W} {noun} {are} shown {place}.", "{n} {noun} can be seen {place}.",
    ),
    "answer is": (
        "The answer is {n}.", "The answer is {w}", "Answer: {n}", "answer: {w}", "Final answer: {n}",
        "The final answer is {n}.", "**Answer:** {n}", "The correct answer is {n}.", "My answer is {n}",
        "The answer is **{n}**.", "The answer is: {n}", "The answer is \\boxed{{{n}}}.",
        "Answer: {n} {noun}", "So the answer is {n}.", "Therefore, the answer is {n}.",
        "Thus, there {are} {n} {noun}.", "Therefore, there {are} {w} {noun} {place}.",
        "Final Answer: **{n}**", "Answer = {n}",
    ),
    "number of": (
        "The number of {nouns} is {n}.", "The total number of {nouns} is {n}",
        "The total number of {nouns} {place} is {n}.", "Number of {nouns}: {n}", "Total: {n}",
        "Total number of {nouns}: {n}", "A total of {n} {noun}", "There {are} a total of {n} {noun}.",
        "{n} in total", "{n} {noun} in total", "{n} {noun} altogether", "In total, there {are} {n} {noun}.",
        "The count is {n}.", "The count of {nouns} is {n}.",
    ),
    "belief": (
        "I think there {are} {n} {noun}.", "I believe the answer is {n}.", "I would say {n}.",
        "I think it is {n}", "I'd say {n} {noun}", "I believe there {are} {w} {noun} {place}.",
    ),
    "repeated": (
        "{n} ({w})", "{w} ({n})", "{n} {noun} ({n})", "{n}. There {are} {n} {noun} {place}.",
        "{n}, there {are} {w} {noun}.", "{n}\n\nThere {are} {n} {noun}.",
        "{n}; I count {n} {noun} {place}.",
    ),
    "explained": (
        "{n} ({wp} on the left, {wr} on the right)", "{n}: {p} on the left and {r} on the right",
        "{n} {noun}: {wp} in front and {wr} behind",
        "{n}, because I see {p} on the left and {r} on the right", "{n} - {wp} red and {wr} blue",
        "{n}. One is on the left.", "{n}, since {p} are on the left and {r} are on the right.",
        "{n} because they are all visible", "{n}, as shown in the picture.",
        "{n} ({p} standing and {r} sitting)",
    ),
    "steps": (
        "I see {p} on the left and {r} on the right. The answer is {n}.", "{p} + {r} = {n}",
        "There are {p} on the left and {r} on the right, so the answer is {n}.",
        "On the left there are {p}. On the right there are {r}. Total: {n}",
        "{p} on the left, {r} on the right.\n\n**Answer:** {n}",
        "First, {p} {nouns} on the left. Then, {r} on the right. Therefore, there are {n} {noun}.",
        "{p}+{r}={n}", "Step 1: {p} on the left.\nStep 2: {r} on the right.\nFinal answer: {n}",
    ),
    "box": (
        '{n} {{"bbox_2d": [10, 20, 30, 40], "label": "dog"}}', "{n} [10, 20, 30, 40]",
        "{n} <|box_start|>(1,2),(3,4)<|box_end|>",
        '{n}\n```json\n[{{"bbox_2d": [10, 20, 30, 40], "label": "x"}}]\n```',
        "There {are} {n} {noun}: [10, 20, 30, 40], [20, 30, 40, 50].", "{n} {noun} at [10, 20, 30, 40]",
        "<box>10, 20, 30, 40</box> {n}",
    ),
    "unicode": (
        "\u7b54\u6848\uff1a{n}", "\u7b54\u6848\u662f{n}\u3002", "{n}\u3002", "\uff08{n}\uff09",
        "\u201c{n}\u201d", "{n}\u200b", "\u7b54\u6848: {n}",
    ),
    "json": (
        '{{"answer": {n}}}', '{{"answer": "{n}"}}', "{{'answer': '{n}'}}",
        '```json\n{{"answer": {n}}}\n```',
    ),
    "question first": (
        "How many {nouns}? {n}", "Question: how many {nouns} are there? Answer: {n}",
        "Sure! There {are} {n} {noun}.", "Looking at the image, I can see {n} {noun}.",
        "Based on the image, there {are} {n} {noun}.", "After counting, there {are} {w} {noun}.",
        "Let me count. There {are} {n} {noun}.", "Looking at the picture, the answer is {n}.",
        "Counting carefully, I find {n} {noun}.",
    ),
    "predicate": (
        "{n} is the answer.", "{n} is correct", "{n} is the correct answer.",
        "{n} is the number of {nouns}", "{n} is the total", "{n} is my final answer", "{n}, final answer.",
    ),
}

TRUE_ZEROS: Families = {
    "plain": (
        "0", "zero", "Zero", "none", "None.", "0.", "Zero.", "nothing", "0 {nouns}", "zero {nouns}",
        "none at all",
    ),
    "no noun": (
        "no {nouns}", "No {nouns}.", "There are no {nouns}.", "There are no {nouns} {place}.",
        "I see no {nouns}", "I can see no {nouns} {place}.", "No {nouns} are visible.",
        "No {nouns} are {place}.", "The picture shows no {nouns}.", "The answer is none.",
        "There are none.", "There are none {place}",
    ),
    "not any": (
        "There aren't any {nouns}.", "There are not any {nouns} {place}.", "I don't see any {nouns}.",
        "I do not see any {nouns} {place}.", "I can't see any {nouns}", "I cannot see any {nouns}.",
    ),
    "sentence": (
        "The answer is 0.", "The answer is zero.", "There are 0 {nouns}.",
        "There are zero {nouns} {place}.", "The number of {nouns} is 0.", "\\boxed{{0}}", "Answer: 0",
        "**0**", "So the answer is 0.", "0, there are no {nouns} {place}.", "0. There are no {nouns}.",
        "0 (no {nouns} are visible)", "None, there are no {nouns}.",
    ),
}

TRUE_OPTIONS: Families = {
    "letter": (
        "{L}", "{l}", "({L})", "{L}.", "{L})", "({l})", "[{L}]", "{L}:", "**{L}**", "`{L}`", "{F}",
        "\uff08{L}\uff09", "{L}\u3002", '"{L}"', " {L} ", "({L}).", "**({L})**", "**{L}.**",
        "<answer>{L}</answer>", "{L}!",
    ),
    "latex": (
        "\\boxed{{{L}}}", "\\boxed{{\\text{{{L}}}}}", "\\text{{{L}}}", "$\\boxed{{{L}}}$",
        "\\boxed{{({L})}}", "$\\text{{{L}}}$", "\\boxed{{\\textbf{{{L}}}}}", "\\mathrm{{{L}}}",
        "The answer is $\\boxed{{{L}}}$.", "\\(\\boxed{{{L}}}\\)",
    ),
    "word": (
        "Option {L}", "option {L}", "Choice {L}", "Option ({L})", "Option {L}.", "Answer {L}",
        "Answer: {L}", "Answer: ({L})", "answer: {l}", "**Answer: {L}**", "Final answer: {L}",
        "Correct answer: {L}", "Letter {L}",
    ),
    "sentence": (
        "The answer is {L}.", "The answer is ({L}).", "The correct option is {L}.",
        "The correct choice is {L}", "I choose {L}.", "I choose ({L}).", "It is {L}.", "It's {L}.",
        "{L} is correct.", "{L} is right.", "{L} is the correct answer.", "({L}) is correct.",
        "{L} is the answer", "{L} is the correct option.", "Therefore, {L}", "Therefore, {L}.", "So, {L}.",
        "Thus, the answer is {L}.", "So the correct answer is {L}.", "The correct answer is option {L}.",
        "I would choose {L}.", "I pick {L}", "My answer is {L}.", "The best option is {L}",
        "I select option {L}.", "I would go with {L}.", "I think the answer is {L}.", "I believe it is {L}",
        "Hence, option {L}.", "Option {L} is correct.", "Option ({L}) is the correct answer.",
        "The right answer is {L}", "The answer is option ({L}).",
    ),
    "text": (
        "{t}", "{T}", "{T}.", "the {t}", "a {t}", "The {t}.", "**{t}**", "The answer is {t}.",
        "The answer is the {t}.", "It is the {t}.", "\\boxed{{\\text{{{t}}}}}", "It's a {t}.",
    ),
    "letter and text": (
        "{L}. {t}", "({L}) {t}", "{L}) {t}", "{L}: {t}", "{L} {t}", "{L}, {t}", "{L} - {t}", "{L}. {T}",
        "{L}. {t}.", "**{L}. {t}**", "The answer is {L}. {t}", "The answer is ({L}) {t}.",
        "The correct answer is {L}: {t}.", "Option {L}: {t}", "{L}. the {t}", "{L} ({t})", "{t} ({L})",
        "{L}\n{t}", "Answer: {L}. {t}", "The correct option is ({L}) {t}.", "\\boxed{{{L}. {t}}}",
        "{L}\uff0e{t}", "\uff08{L}\uff09{t}",
    ),
    "explained": (
        "{L}. The {t} is on the left.", "{L} - the {t} is left of the {u}",
        "**{L}** - the {t} is left of the {u}", "{L}, because the {t} is on the left",
        "{L}. It is shown in the picture.", "{L} because it is the {t}",
        "The answer is {L}, because the {t} is visible on the left.",
        "{L}: the {t} stands in front of the {u}.", "{L}\n\nThe {t} is on the left of the picture.",
        "The answer is {L}. The {t} is in the foreground.", "{L} (the {t} is on the left)",
        "{L}. {t}, as it is on the left.",
    ),
    "chinese": (
        "\u7b54\u6848\uff1a{L}", "\u7b54\u6848\u662f{L}", "\u7b54\u6848\uff1a\uff08{L}\uff09", "\u9009{L}",
        "\u6b63\u786e\u7b54\u6848\u662f {L}\u3002", "\u7b54\u6848\u4e3a\uff1a{L}",
        "\u56e0\u6b64\uff0c\u7b54\u6848\u662f{L}\u3002", "\u9009\u62e9{L}",
    ),
    "steps": (
        "The {u} is on the right. The {t} is on the left. The answer is {L}.",
        "Looking at the picture, the {t} is on the left. Therefore, the answer is {L}.",
        "The {t} is on the left, so the answer is {L}.",
        "The picture shows a {t} on the left.\n\nAnswer: {L}", "The {t} is on the left.\n\n\\boxed{{{L}}}",
    ),
    "json": (
        '{{"answer": "{L}"}}', '{{"answer": "{L}. {t}"}}',
    ),
}

TRUE_POLAR: Families = {
    "plain": (
        "{x}", "{lower}", "{x}.", "{upper}", "**{x}**", "\\boxed{{\\text{{{x}}}}}", "\\boxed{{{x}}}",
        "'{x}'", '"{x}"', "{x}!", "<answer>{x}</answer>", "({lower})", "{true}", "`{lower}`",
    ),
    "sentence": (
        "The answer is {lower}.", "The answer is {x}", "Answer: {x}", "I would say {lower}",
        "Final answer: {x}", "My answer is {lower}.", "I think {lower}", "The correct answer is {lower}.",
        "So the answer is {lower}.", "Therefore, the answer is {lower}.", "Therefore, {lower}.",
        "{x} is the answer.", "The answer is **{x}**.", "**Answer:** {x}", "\u7b54\u6848\uff1a{x}",
    ),
    "restated": (
        "{x}, the {a} is {not}{rel} the {b}.", "{x}. The {a} is {not}{rel} the {b}.",
        "{x}, the {a} is {held} the {b}.", "{x}: the {a} is {held} the {b}",
        "{x}\nThe {a} is {not}{rel} the {b}.", "{x}, it is {not}{rel} the {b}",
        "{x} - the {a} is {not}{rel} the {b}.",
    ),
    "twice": (
        "{x}, {lower}.", "{x}\n{x}", "{x}. {x}.", "{x}, {lower}, {lower}",
    ),
    "explained": (
        "{x}, because the {a} is {held} the {b}.", "{x}, as the picture shows.",
        "{x} (the {a} is {held} the {b})", "{x}, the {a} and the {b} are both visible.",
        "{x}, since the {a} is {held} the {b}.",
    ),
    "steps": (
        "The {a} is {held} the {b}. The answer is {lower}.",
        "The {a} is {held} the {b}, so the answer is {lower}.",
        "Looking at the image, the {a} is {held} the {b}. Therefore, the answer is {lower}.",
        "The {a} is {held} the {b}.\n\nAnswer: {x}",
    ),
    "yes in short": (
        "Yes, it is.", "Yes it is", "Yes, that is correct.", "yes, indeed", "Yes, definitely.",
        "Yes, there is no gap", "Yeah", "yep",
    ),
    "no in short": (
        "No, it is not.", "No it isn't", "No, it isn't.", "Nope", "No, it's not.", "No, definitely not.",
        "No, not at all.",
    ),
    "statement": (
        "The {a} is {not}{rel} the {b}.",
    ),
    "box": (
        "{x} [10, 20, 30, 40]", '{x} {{"bbox_2d": [10, 20, 30, 40], "label": "{a}"}}',
        "{x}, the {a} [10, 20, 30, 40] is {held} the {b} [20, 30, 40, 50].", '{{"answer": "{x}"}}',
    ),
}

TRUE_NAMES: Families = {
    "plain": (
        "{t}", "{T}", "{T}.", "{an} {t}", "{An} {t}.", "the {t}", "The {t}.", "**{t}**", "`{t}`", '"{t}"',
        "\\boxed{{\\text{{{t}}}}}", "<answer>{t}</answer>", "({t})", "{t}\n", "{t}!",
    ),
    "adjective": (
        "brown {t}", "a small {t}", "The white {t}", "a large black {t}", "a young {t}",
    ),
    "sentence": (
        "It is {an} {t}.", "It is the {t}.", "The answer is {t}.", "The answer is {an} {t}.", "Answer: {t}",
        "Final answer: {t}", "I see {an} {t}.", "I can see {an} {t} in the image.", "This is {an} {t}.",
        "The object is {an} {t}.", "There is {an} {t}.", "It's {an} {t}.", "That is the {t}.",
        "I think it is {an} {t}.", "Therefore, the answer is {t}.", "\u7b54\u6848\uff1a{t}",
        "So it is the {t}.", "The object shown is {an} {t}.",
    ),
    "restated": (
        "The {t} is {rel} the {r}.", "There is {an} {t} {rel} the {r}.", "{An} {t} is {rel} the {r}.",
        "The object {rel} the {r} is {an} {t}.", "The {t} {rel} the {r}", "I see {an} {t} {rel} the {r}.",
    ),
    "described": (
        "the {t} in the picture", "{an} {t} on the left", "{an} {t} standing near the tree",
        "The {t} that is lying on the floor", "{an} {t} in the foreground",
    ),
    "explained": (
        "{t}, it is {rel} the {r}", "{T}. It is {rel} the {r}.", "{t} (it is {rel} the {r})",
        "{t}, because it is {rel} the {r}", "{t} - it is {rel} the {r}",
        "The answer is {t}. It is {rel} the {r}.", "{t}, which is {rel} the {r}",
        "{t}: it is {rel} the {r}.",
    ),
    "steps": (
        "Looking at the picture, something is {rel} the {r}. The answer is {t}.",
        "There is something {rel} the {r}. Therefore, the answer is {an} {t}.",
        "The {r} is in the middle, so the answer is {t}.",
    ),
    "box": (
        "{t} [10, 20, 30, 40]", "{t} <box>10, 20, 30, 40</box>",
        '{t} {{"bbox_2d": [10, 20, 30, 40], "label": "{t}"}}', '{{"answer": "{t}"}}',
        "The {t} [10, 20, 30, 40] is {rel} the {r} [20, 30, 40, 50].",
    ),
}

PAIRS_THAT_MATCH = (
    "{a}/{b} => {a}/{b}", "{a}/{b} => {a} / {b}", "{a}/{b} => \\frac{{{a}}}{{{b}}}",
    "\\frac{{{a}}}{{{b}}} => {a}/{b}", "\\frac{{{a}}}{{{b}}} => \\dfrac{{{a}}}{{{b}}}",
    "\\frac{{{a}}}{{{b}}} => $\\frac{{{a}}}{{{b}}}$", "{a}/{b} => The answer is {a}/{b}.",
    "1/2 => one half", "1/2 => half", "1/2 => 0.5", "0.5 => 1/2", "3/4 => three quarters", "1/2 => \u00bd",
    "{a} 1/2 => {a}\u00bd", "{a}.5 => {a} 1/2", "{a}.5 => {wa} and a half", "{a}.5 => {a}.50",
    "{a}.5 => {wa} point five", "100 => one hundred", "100 => a hundred", "1000 => one thousand",
    "1000 => 1,000", "1,000 => 1000", "123 => one hundred and twenty-three",
    "123 => one hundred twenty three", "24 => two dozen", "12 => a dozen", "{a}000000 => {a} million",
    "{a}00 => {wa} hundred", "{a} million => {a}000000", "{a}000 => {a},000", "6 => half a dozen",
    "2500 => two thousand five hundred", "21 => twenty-one", "42 => Forty two.", "1000 => 1 000",
    "{a}% => {a} percent", "{a}% => {a} %", "{a}% => {a} per cent", "{a}\u00b0 => {a} degrees",
    "{a}\u00b0 => {a}^\\circ", "{a}\u00b0 => $ {a}^{{\\circ}} $", "{a}\u00b0 => {a}", "${a} => {a} dollars",
    "${a} => \\${a}", "{a} cm => {a}cm", "{a} cm => {a} centimeters", "{a} kg => {wa} kilograms",
    "{a} cm^2 => {a} cm\u00b2", "{a} cm\u00b2 => {a} square centimeters", "{a}m => {a} meters",
    "-{a} => \u2212{a}", "-{a} => minus {wa}", "-{a} => negative {a}", "{a} => +{a}",
    "{a}% => The answer is {a}%.", "x+{a} => x + {a}", "x<{a} => x < {a}",
    "x<{a} => The answer is x < {a}.", "\\sqrt{{{a}}} => \u221a{a}", "2\u221a{a} => 2\\sqrt{{{a}}}",
    "2\u221a{{{a}}} => $2\\sqrt{{{a}}}$", "{a}^{b} => {a}^{{{b}}}", "x^2 => x\u00b2",
    "{a}\u03c0 => {a}\\pi", "{a}:{b} => {a} : {b}", "{a}:{b} => The ratio is {a}:{b}.", "10:30 => 10:30.",
    "10:30 => The time is 10:30.", "({a}, {b}) => ({a},{b})", "{a}-{b} => {a} - {b}",
    "{a}-{b} => {a}\u2013{b}", "[{a}, {b}] => [{a},{b}]", "[{a}, {b}] => The answer is [{a}, {b}].",
    "C++ => c++", "x\u2264{a} => x \\leq {a}", "{a} => x = {a}", "{a} => The value of x is {a}.",
    "{a}*{b} => {a} \u00d7 {b}", "{a}.0 => {a}", "0.{a} => .{a}", "{a} => \\boxed{{{a}}}",
    "04/02/2005 => 04/02/2005.", "60-k => 60 - k",
)
