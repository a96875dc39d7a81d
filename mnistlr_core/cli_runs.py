"""The command line's words for stored runs: list, show, compare, keep, take away."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from mnistlr_core.comparison import compare_errors, differing_fields, legends
from mnistlr_core.comparison_sentences import errors_sentence, reached_sentence
from mnistlr_core.export import read_configs, run_as_dict, runs_as_dict
from mnistlr_core.lab import Lab
from mnistlr_core.records import Evidence
from mnistlr_core.take_away import Kind, run_file
from mnistlr_core.terminal import Interrupts, json_option, print_json, print_run, watch_all
from mnistlr_core.trackers import write_mlflow, write_tensorboard

if TYPE_CHECKING:  # argparse keeps the type of its subcommands to itself
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add these commands to the parser's."""
    runs = commands.add_parser("runs", help="list the stored runs, newest first")
    runs.add_argument("--limit", type=int, default=50, help="how many at the most (default 50)")
    json_option(runs)
    runs.set_defaults(command=_runs)

    show = commands.add_parser("show", help="show one run")
    show.add_argument("id")
    json_option(show)
    show.set_defaults(command=_show)

    stop = commands.add_parser("stop", help="ask a run to stop; it keeps what was trained")
    stop.add_argument("id")
    stop.set_defaults(command=_stop)

    delete = commands.add_parser("delete", help="delete a run with its history and files")
    delete.add_argument("id")
    delete.add_argument("--yes", action="store_true", help="really do it")
    delete.set_defaults(command=_delete)

    compare = commands.add_parser("compare", help="lay runs side by side: values, figures, errors")
    compare.add_argument("ids", nargs="+", metavar="ID")
    json_option(compare)
    compare.set_defaults(command=_compare)

    export = commands.add_parser("export", help="take a run away as files")
    export.add_argument("id")
    for kind in Kind:
        export.add_argument(f"--{kind.value}", type=Path, metavar="FILE", help=f"write it as: {kind.label}")
    export.add_argument("--tensorboard", type=Path, metavar="DIR", help="write it for TensorBoard")
    export.add_argument("--mlflow", type=Path, metavar="DIR", help="write it for MLflow")
    export.set_defaults(command=_export)

    imported = commands.add_parser("import", help="train the configurations of a JSON file")
    imported.add_argument("file", type=Path)
    json_option(imported)
    imported.set_defaults(command=_import)

    archive = commands.add_parser("archive", help="put runs out of every list; they keep all they have")
    archive.add_argument("ids", nargs="+", metavar="ID")
    archive.add_argument("--restore", action="store_true", help="take them back")
    archive.set_defaults(command=_archive)

    tag = commands.add_parser("tag", help="add tags to runs, or take them away")
    tag.add_argument("ids", nargs="+", metavar="ID")
    tag.add_argument("--add", action="append", default=[], metavar="TAG")
    tag.add_argument("--remove", action="append", default=[], metavar="TAG")
    tag.set_defaults(command=_tag)

    note = commands.add_parser("note", help="write a run's note, or show it")
    note.add_argument("id")
    note.add_argument("text", nargs="?", help="the note; without it, the one there is is printed")
    note.add_argument("--name", help="call the run so; an empty name is its label again")
    note.set_defaults(command=_note)


def _runs(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        found = lab.runs(limit=options.limit)
        if options.json:
            print_json({"runs": [run_as_dict(run, lab.history(run.id)) for run in found]})
            return 0
        for run in found:
            accuracy = f"{run.test.accuracy:.4f}" if run.test else "      "
            print(
                f"{run.id}  {run.state:9}  {accuracy}  {run.seconds:8.1f} s  {run.config.dataset}  {run.config.label}"
            )
        if not found:
            print("No runs yet: python -m mnistlr_core train", file=sys.stderr)
    return 0


def _show(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        run = lab.run(options.id)
        if options.json:
            print_json(run_as_dict(run, lab.history(run.id), cached=run.state.answered))
        else:
            print_run(lab, run, cached=False)
    return 0


def _stop(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        lab.stop(options.id)
    return 0


def _delete(options: argparse.Namespace) -> int:
    if not options.yes:
        print(f"This deletes run {options.id} for good; say --yes to do it.", file=sys.stderr)
        return 2
    with closing(Lab()) as lab:
        lab.delete(options.id)
    return 0


def _compare(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        runs = [lab.run(run_id) for run_id in options.ids[: len(ascii_uppercase)]]
        evidence = [Evidence(run, lab.history(run.id)) for run in runs]
        titles = legends([run.config for run in runs])
        names = ascii_uppercase[: len(runs)]
        differs = differing_fields([run.config for run in runs])
        said = [reached_sentence(evidence, names)]
        errors = None
        if len(runs) == 2 and all(run.test for run in runs):
            errors = compare_errors(*(lab.predictions(run) for run in runs))
            said.append(errors_sentence(errors, (names[0], names[1])))
    if options.json:
        print_json(
            {
                "differs": {name: [run.config.canonical().get(name) for run in runs] for name in differs},
                "runs": [run_as_dict(one.run, one.history) for one in evidence],
                "errors": None
                if errors is None
                else {
                    "only_first": len(errors.only_a),
                    "only_second": len(errors.only_b),
                    "both": len(errors.both),
                    "both_same": len(errors.same),
                    "mcnemar_p": errors.p,
                },
                "sentences": said,
            }
        )
        return 0
    for run, name, title in zip(runs, names, titles, strict=True):
        tested = f"test {run.test.accuracy:.4f}" if run.test else str(run.state)
        print(f"{name}  {run.id}  {tested:12}  {run.seconds:7.1f} s  {title}")
    for field in differs:
        print(f"{field:18} " + "  ".join(str(run.config.canonical().get(field, "–")) for run in runs))
    print("\n".join(said))
    return 0


def _export(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        run = lab.run(options.id)
        wanted = [(kind, path) for kind in Kind if (path := getattr(options, kind.value))]
        for kind, path in wanted:
            path.write_bytes(run_file(lab, run, kind))
            print(path)
        evidence = Evidence(run, lab.history(run.id))
        if options.tensorboard:
            print(write_tensorboard(evidence, lab.step_losses(run.id), options.tensorboard))
        if options.mlflow:
            weights = lab.weights(run) if run.test else None
            print(write_mlflow(evidence, lab.step_losses(run.id), options.mlflow, weights))
    if not (wanted or options.tensorboard or options.mlflow):
        print("Say as what: --script FILE, --report FILE, --weights FILE, …", file=sys.stderr)
        return 2
    return 0


def _import(options: argparse.Namespace) -> int:
    configs = read_configs(options.file.read_text(encoding="utf-8"))
    with closing(Lab()) as lab, Interrupts() as interrupts:
        for config in configs:
            lab.submit(config)
        runs = watch_all(lab, configs, interrupts)
    found = [runs[config.short_id] for config in configs if config.short_id in runs]
    if options.json:
        print_json(runs_as_dict(found))
    else:
        for one in found:
            print(f"{one.run.id}  {one.run.state:9}  {one.run.config.label}")
    return 0 if all(one.run.state.answered for one in found) else 1


def _archive(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        lab.library.archive([lab.run(run_id).id for run_id in options.ids], on=not options.restore)
    return 0


def _tag(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        ids = [lab.run(run_id).id for run_id in options.ids]
        lab.library.tag(ids, add=options.add, remove=options.remove)
        for run_id, tags in lab.library.tags(ids).items():
            print(f"{run_id}  {', '.join(tags)}")
    return 0


def _note(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        run = lab.run(options.id)
        if options.text is None and options.name is None:
            print(run.note)
            return 0
        name = (run.name or "") if options.name is None else options.name
        lab.library.edit(run.id, run.revision, name=name, note=run.note if options.text is None else options.text)
    return 0
