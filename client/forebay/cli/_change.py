"""``forebay rm``, ``mv`` and ``mb``: objects go, objects get another name, buckets are made."""

from __future__ import annotations

import click

import forebay
from forebay.cli._common import TEXT, client_options, connected
from forebay.cli._places import Place, object_below

_OF_ONE_PATH = (forebay.ObjectNotFoundError, forebay.AccessDeniedError, forebay.InvalidPathError)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=TEXT)
@click.option("-r", "recursive", is_flag=True, help="Everything below them, too.")
@click.option("--missing-ok", is_flag=True, help="What is not there is no error.")
@client_options
def rm(
    paths: tuple[str, ...],
    recursive: bool,
    missing_ok: bool,
    address: str | None,
    timeout_s: float,
) -> None:
    """Remove objects: hidden at once, gone from the origin after everything written before.

    \b
    Example:
      forebay rm s3://bucket/run7/epoch_1.pth
      forebay rm -r --missing-ok s3://bucket/run6/
    """
    is_failed = False
    with connected(address, timeout_s) as client:
        for path in paths:
            try:
                if not recursive:
                    client.remove(path, missing_ok=missing_ok)
                elif missing_ok or client.exists(path):
                    client.remove_tree(path)
                else:
                    raise forebay.ObjectNotFoundError(f"there is nothing at or below {path}")
            except _OF_ONE_PATH as error:  # noqa: PERF203  # the others go all the same
                text = str(error).replace("use remove_tree", "use -r")
                click.echo(f"forebay: {text}", err=True)
                is_failed = True
    if is_failed:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("source", type=TEXT)
@click.argument("target", type=TEXT)
@client_options
def mv(source: str, target: str, address: str | None, timeout_s: float) -> None:
    """Give an object another name, after everything written before is in the origin.

    A TARGET that is a folder, or ends with a slash, takes the object under its own name. For local
    files use `forebay cp`.

    \b
    Example:
      forebay mv s3://bucket/run7/part.pth s3://bucket/run7/epoch_1.pth
    """
    with connected(address, timeout_s) as client:
        stat = client.stat(source)
        name = stat.uri.rpartition("/")[2]
        uri = object_below(client, Place(target, client._uri(target)), name)
        if uri == stat.uri:
            raise click.UsageError(f"{source} and {target} are the same object")
        client.move(stat.uri, uri)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=TEXT)
@client_options
def mb(paths: tuple[str, ...], address: str | None, timeout_s: float) -> None:
    """Make the buckets of URIs; one that is there already is no error.

    \b
    Example:
      forebay mb s3://runs
    """
    with connected(address, timeout_s) as client:
        for path in paths:
            client.create_bucket(path)
