"""The colours that figures and pages share."""

INK, GREY, FAINT = "#1f2328", "#6b7077", "#d9dbde"

# Okabe and Ito's, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
YELLOW = "#ffe14d"  # on the dark end of a heat map

LINK, GOOD, BAD, OPEN = "#14507d", "#1c6b43", "#a5301c", "#7a5a00"  # dark enough to be read as text
WORDS = {
    **dict.fromkeys(("holds", "done", "MATCH", "CONSISTENT"), GOOD),
    **dict.fromkeys(("fails", "diverged", "silent", "at chance", "WORSE", "DIFFERS"), BAD),
    **dict.fromkeys(("undecided", "not decidable", "INCOMPLETE", "INCOMPARABLE"), OPEN),
    "BETTER": LINK,
}
