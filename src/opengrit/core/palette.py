"""The colours of boxes, in the order of their numbers."""

# Okabe and Ito's palette, distinguishable by colour-blind readers; the ink of the number on each.
COLOURS = (
    ("#E69F00", "#000"),
    ("#56B4E9", "#000"),
    ("#009E73", "#000"),
    ("#F0E442", "#000"),
    ("#0072B2", "#fff"),
    ("#D55E00", "#000"),
    ("#CC79A7", "#000"),
)
