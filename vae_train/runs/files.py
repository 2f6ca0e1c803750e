"""The names of a run's files."""

from pathlib import Path

from vae_train.util.errors import ErrorDetail

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"


class RunFiles:
    """The paths of a run's files, which need not exist.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_file = folder / LOCK_FILE
        """Names the process that trains the run."""
        self.config_file = folder / CONFIG_FILE
        """The resolved configuration."""
        self.summary_file = folder / "summary.json"
        """How the run ended."""
        self.facts_file = folder / "facts.json"
        """Facts about the data."""
        self.environment_file = folder / "environment.json"
        """Versions and hardware."""
        self.tracker_file = folder / "tracker.json"
        """The id that experiment trackers know the run by."""
        self.metrics_file = folder / "metrics.jsonl"
        """A row of metrics per line."""
        self.curves_file = folder / "curves.png"
        """Plots of the metrics."""
        self.log_file = folder / "train.log"
        """The log, with tracebacks."""
        self.bad_files = folder / "bad_files.txt"
        """Files of the data set that could not be read."""
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.tensorboard = folder / "tb"
        """TensorBoard's event files. The folder's name is short because TensorBoard shows it."""
        self.eval = folder / "eval"
        """The reports of `vae eval`."""
        self.eval_lock_file = self.eval / LOCK_FILE
        """Held while a report is merged."""
        self.exports = folder / "export"
        """The first result of `vae export`; further ones have numbers."""
        self.priors = folder / "priors"
        """Priors fitted after training."""
        self.applications = folder / "apply"
        """The results of `vae apply`, a folder each."""

    def link_errors(self) -> list[ErrorDetail]:
        """Symbolic links in the run, through which nothing may be written."""
        named = (self.folder / name for name in ("reconstructions", "wandb"))
        folders = (self.checkpoints, self.samples, self.tensorboard, self.eval, self.priors, self.applications, *named)
        # Other files are replaced as a whole.
        files = (self.log_file, self.lock_file, self.eval_lock_file)
        remedies = dict.fromkeys(folders, "replace it by the folder itself")
        remedies |= dict.fromkeys([*files, *self.tensorboard.rglob("*")], "remove it")
        return [
            ErrorDetail(str(path), f"is a symbolic link, and vae does not write through links; {remedy}")
            for path, remedy in remedies.items()
            if path.is_symlink()
        ]
