"""The floors of the house, in one list."""

# docs/architecture.md has this list as a table, with what lives on each floor. Lowest first.
FLOORS = (
    "core",
    "grounding",
    "clients",
    "judges",
    "rewards",
    "data",
    "runs",
    "recipes",
    "sampling",
    "models",
    "evaluation",
    "converters",
    "publishing",
    "training",
    "reports",
    "experiments",
    "inference",
    "scripting",
    "harness",
    "doctor",
    "serving",
    "annotation",
    "cli",
)
