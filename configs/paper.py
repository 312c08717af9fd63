"""One row of a table of the paper, on the paper's data. Rows: tufl_jax/paper.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/paper.py:table3/row4

The row's run and what it builds on, in runs/paper/table3/row4. Whole tables share their
runs: python -m tufl_jax.sweep --table table3 --config configs/synthia.py
"""

from tufl_jax import paper


def get_config(row="table3/row4"):
    """The recipe of 'TABLE/ROW', ROW its name or row1, row2, ..."""
    table, _, name = row.partition("/")
    return paper.recipe_of(paper.paper_base(table), table, [name] if name else ())[0]
