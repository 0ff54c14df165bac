"""Options that the verbs on Ray share."""

import click

track_option = click.option(
    "--track",
    multiple=True,
    type=click.Choice(["wandb", "mlflow"]),
    help="Send every result to Weights & Biases or MLflow as well (extras wandb, mlflow); may be repeated. "
    "TensorBoard's files are always written.",
)
