"""Pictures of the world."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from envs.fit import FitReport


def draw_reliability(report: FitReport, path: Path) -> None:
    """Predicted against observed response rate on held-out users, beside the fit's learning curves."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)

    bins, model = report.reliability, report.quality["model"]
    limit = max(bins.predicted.max(), bins.observed.max()) * 1.05
    left.plot([0, limit], [0, limit], color="0.7", linewidth=1, label="perfect calibration")
    left.plot(bins.predicted, bins.observed, "o-", color="C0", markersize=4, label="response model")
    left.set(
        xlabel="predicted response probability",
        ylabel="observed response rate",
        title=f"Held-out users: AUC {model.auc:.3f}, ECE {model.ece:.3f}",
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
    )
    left.legend(frameon=False)

    epochs = range(1, len(report.validation_log_loss) + 1)
    right.plot(epochs, report.train_log_loss, ".-", color="C1", label="training users (with dropout)")
    right.plot(epochs, report.validation_log_loss, ".-", color="C0", label="validation users")
    right.axvline(report.best_epoch, color="0.7", linewidth=1)
    right.set(
        xlabel="epoch",
        ylabel="log-loss (nats)" if len(report.behaviours) < 2 else "log-loss, sum of all behaviours (nats)",
        title="Fit; the line marks the kept epoch",
    )
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
