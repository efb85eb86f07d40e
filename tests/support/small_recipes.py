"""Recipes that take seconds, as text: a small network on digits."""

TARGETED = """
[sparsity]
method = "targeted"
gamma = 0.5
alpha = 0.5
"""


def small_recipe(
    name: str,
    tables: str,
    *,
    seed: int | None = None,
    width: int = 4,
    hidden: int = 8,
    prune: str = "fraction = 0.5",
    bench: str | None = "none",
) -> str:
    """A recipe of digits_cnn.

    Args:
        name: of the run.
        tables: the others: [sparsity], and what else the test is about.
        seed: None = as by default.
        width: of the network.
        hidden: of its last layer but one.
        prune: the lines of [prune].
        bench: the budget; None = no such table.
    """
    given = "" if seed is None else f"seed = {seed}\n"
    budget = "" if bench is None else f'\n[bench]\nbudget = "{bench}"\n'
    return f"""name = "{name}"
{given}
[data]
name = "digits"

[model]
name = "digits_cnn"
width = {width}
hidden = {hidden}

[prune]
{prune}
{budget}{tables}"""
