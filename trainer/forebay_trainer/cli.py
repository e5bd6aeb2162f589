"""The trainer's commands of ``forebay``. Imports torch when one runs, not before."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

import forebay
from forebay._paths import check_mapping, parse_mapping
from forebay.cli._common import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _WrongConfigError(click.ClickException):
    exit_code = 2


class _Command(click.Command):
    """A command whose repeatable options also take several values, as ``--eval bbox segm``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        spread: list[str] = []
        current: str | None = None  # the option whose values these are
        for position, arg in enumerate(args):
            if arg.startswith("-"):
                current = arg if arg in repeatable else None
            elif current is not None and args[position - 1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(ctx, spread)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_errors():
            return super().invoke(ctx)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn errors that a user can mend into messages; the others keep their tracebacks."""
    from forebay_trainer.config import ConfigError
    from forebay_trainer.images import ImageError
    from forebay_trainer.weights import WeightsError

    try:
        yield
    except (ConfigError, ImageError, WeightsError) as error:
        raise _WrongConfigError(str(error)) from error


def run(command: click.Command) -> None:
    """Run a command as a program of its own, as ``python -m`` and torchrun do."""
    try:
        command.main()
    except (forebay.ForebayError, OSError) as error:
        click.echo(f"forebay: {error}", err=True)
        sys.exit(1)


def _map_paths(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> None:
    """Let FOREBAY_PATH_MAPPING have what the option says, for this process and its workers."""
    try:
        mapping = parse_mapping(os.environ.get("FOREBAY_PATH_MAPPING", ""))
        for value in values:
            mapping |= parse_mapping(value)
        check_mapping(mapping)
    except forebay.InvalidPathError as error:
        raise click.BadParameter(str(error)) from error
    if mapping:
        os.environ["FOREBAY_PATH_MAPPING"] = json.dumps(mapping)


def _parse_options(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:
    from forebay_trainer.config import ConfigError, parse_options

    try:
        return parse_options(values)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


_path_mapping = click.option(
    "--path-mapping",
    multiple=True,
    expose_value=False,
    is_eager=True,
    callback=_map_paths,
    metavar="FROM=TO",
    help="Read and write what lies below FROM at TO where the configuration gives no mapping.",
)


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all commands with a configuration have."""
    for decorate in (
        _path_mapping,
        click.option(
            "--cfg-options",
            "options",
            multiple=True,
            callback=_parse_options,
            metavar="KEY=VALUE",
            help="Change the configuration: optimizer.lr=0.01 data.samples_per_gpu=4.",
        ),
        click.argument("config"),
    ):
        function = decorate(function)
    return function


_device = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="What there is.")


@click.command("train", cls=_Command)
@_common
@click.option("--work-dir", help="For logs and checkpoints.  [default: ./work_dirs/CONFIG]")
@click.option("--resume-from", metavar="CHECKPOINT", help="Go on from there.")
@click.option("--auto-resume", is_flag=True, default=None, help="Go on from the last checkpoint.")
@click.option("--no-validate", is_flag=True, help="Do not evaluate.")
@click.option(
    "--seed",
    type=int,
    help="Of all random numbers; a resumed run keeps its own.  [default: another each time]",
)
@click.option("--deterministic", is_flag=True, default=None, help="Let cuDNN be so, and slower.")
@click.option(
    "--flush-timeout",
    "flush_timeout_s",
    type=SECONDS,
    metavar="SECONDS",
    help="Fail if not all is uploaded so long after the end.  [default: wait for ever]",
)
@_device
def train_command(config: str, options: dict[str, Any], no_validate: bool, **settings: Any) -> None:
    """Train a detector by an MMDetection 2.x configuration.

    CONFIG, data, weights, logs and checkpoints may be local or s3://. The run ends when all that it
    wrote is uploaded. Start several processes with torchrun -m forebay_trainer.train CONFIG.

    \b
    Example:
      forebay train config.py --work-dir s3://bucket/run7 --seed 1 --cfg-options optimizer.lr=0.01
      forebay train config.py --path-mapping data/coco/=s3://bucket/coco/ --auto-resume
    """
    from forebay_trainer.train import train

    train(config, options, validate=not no_validate, **settings)


@click.command("test", cls=_Command)
@_common
@click.argument("checkpoint")
@click.option("--eval", "metrics", multiple=True, metavar="METRIC", help="bbox segm, or mAP.")
@click.option("--out", metavar="FILE.pkl", help="Write the results as a pickle.")
@click.option("--format-only", is_flag=True, help="Write them as the data set's server has it.")
@click.option(
    "--eval-options",
    multiple=True,
    callback=_parse_options,
    metavar="KEY=VALUE",
    help="Arguments of evaluation or formatting: classwise=True jsonfile_prefix=results.",
)
@click.option("--show-dir", help="Draw boxes and masks on the images, into this folder.")
@click.option("--show-score-thr", type=float, default=0.3, show_default=True)
@click.option("--work-dir", help="Write the scores there as JSON.")
@_device
def test_command(config: str, checkpoint: str, options: dict[str, Any], **settings: Any) -> None:
    """Test a checkpoint on the data of data.test; at least one of --eval, --out, --format-only and
    --show-dir says what for.

    \b
    Example:
      forebay test config.py work_dirs/config/latest.pth --eval bbox segm --show-dir shown
    """
    if not any(settings[key] for key in ("metrics", "out", "format_only", "show_dir")):
        raise click.UsageError("give --eval, --out, --format-only or --show-dir")
    if settings["metrics"] and settings["format_only"]:
        raise click.UsageError("give one of --eval and --format-only")
    from forebay_trainer.test import evaluate

    for name, value in evaluate(config, checkpoint, options, **settings).items():
        click.echo(f"{name}: {value}")


@click.command("infer", cls=_Command)
@_common
@click.argument("checkpoint")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", metavar="FOLDER", help="Draw what was found, into this folder.")
@click.option("--score-thr", type=float, default=0.3, show_default=True)
@_device
def infer_command(
    config: str, checkpoint: str, images: tuple[str, ...], options: Any, **settings: Any
) -> None:
    """Find objects on IMAGES; prints a JSON object per image.

    \b
    Example:
      forebay infer config.py s3://bucket/run7/latest.pth s3://bucket/photos/1.jpg --out shown
    """
    from forebay_trainer.infer import infer

    infer(config, checkpoint, images, options, tell=click.echo, **settings)


@click.command("browse", cls=_Command)
@_common
@click.option("--out", default="browse", show_default=True, help="A folder or prefix.")
@click.option("--count", type=int, default=20, show_default=True, help="How many samples.")
@click.option("--seed", type=int, default=0, show_default=True)
def browse_command(config: str, options: dict[str, Any], **settings: Any) -> None:
    """Draw training samples as the pipeline makes them.

    \b
    Example:
      forebay browse config.py --count 50 --out /tmp/samples
    """
    from forebay_trainer.browse import browse

    for path in browse(config, options, **settings):
        click.echo(path)


@click.command("config", cls=_Command)
@_common
def config_command(config: str, options: dict[str, Any]) -> None:
    """Print a configuration with its bases resolved.

    \b
    Example:
      forebay config s3://bucket/configs/mine.py --cfg-options runner.max_epochs=1
    """
    from forebay_trainer.config import load_config

    click.echo(load_config(config, options).pretty_text)


@click.group("convert")
def convert_command() -> None:
    """Convert a data set into a form that is trained with."""


@convert_command.command("cityscapes", cls=_Command)
@_path_mapping
@click.argument("source")
@click.option("--out-dir", help="A folder or prefix.  [default: SOURCE]")
@click.option("--img-dir", default="leftImg8bit", show_default=True)
@click.option("--gt-dir", default="gtFine", show_default=True)
@click.option("--nproc", type=int, default=1, show_default=True, help="Processes that read.")
def cityscapes_command(source: str, **settings: Any) -> None:
    """Convert gtFine instance images to COCO's JSON.

    \b
    Example:
      forebay convert cityscapes s3://bucket/cityscapes --out-dir s3://bucket/annotations --nproc 8
    """
    from forebay_trainer.convert.cityscapes import convert

    for path in convert(source, tell=click.echo, **settings):
        click.echo(path)
