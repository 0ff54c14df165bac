"""Options that the verbs on Ray share."""

import click

from cluster.addresses import node_address
from rl_rec.cli.options import Choice

track_option = click.option(
    "--track",
    multiple=True,
    type=Choice(["wandb", "mlflow"]),
    help="Send every result to Weights & Biases or MLflow as well (extras wandb, mlflow); may be repeated. "
    "TensorBoard's files are always written.",
)

address_option = click.option(
    "--address",
    metavar="HOST:PORT|auto",
    callback=lambda _context, _parameter, value: node_address(value) if value else None,
    help="The Ray cluster that this machine is part of, HOST:6379 or auto; by default RAY_ADDRESS, and without "
    "it Ray is started here. From outside a cluster: rl-rec submit.",
)
