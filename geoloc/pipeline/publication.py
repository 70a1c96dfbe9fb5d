"""What others read of a run: its exports and its report, made with it, or again without it. Needs Ray for a large run only."""

import functools
import logging
from dataclasses import asdict, replace

from geoloc.errors import UsageError
from geoloc.pipeline.job_options import PublicationOptions
from geoloc.pipeline.lease import leased
from geoloc.pipeline.run import Run
from geoloc.pipeline.tasks import each_of
from geoloc.recipes.method import RESULTS
from geoloc.results.export import Export, describe_export
from geoloc.results.iceberg import write_table
from geoloc.results.options import FORMATS, ExportOptions
from geoloc.results.parts import Each, Parts
from geoloc.results.report import write_report
from geoloc.results.sidecars import SidecarTree
from geoloc.results.summary import COLUMNS, Summary
from geoloc.schema import RESULT
from geoloc.storage import Folder

log = logging.getLogger("geoloc")


def publish_again(options: PublicationOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.exports.check()
    folder = Folder(options.run, options.s3)
    if not folder.exists("run.json"):
        raise UsageError(f"RUN {options.run}: has no run.json; give the folder that geotag_archive.py wrote to")
    if options.take_back:
        for name in options.take_back:
            tree = Folder(name, options.s3)
            count = SidecarTree(tree, "").take_back()
            log.info("Deleted %s sidecars of ours below %s", f"{count:,}", name)
            if tree.uri == (folder / "xmp").uri:
                with leased(folder) as folder:
                    _forget_export(open_run(folder), "xmp")
        return 0
    with leased(folder) as folder:
        run = open_run(folder)
        if not run.succeeded:
            raise UsageError(f"RUN {options.run}: is not finished; run geotag_archive.py again")
        each = each_of(run.manifest.rows)
        publish(run, options.exports, summarised(run.parts, each), each)
    return 0


def summarised(parts: Parts, each: Each = map) -> Summary:
    """Of a run's results."""
    return Summary.joined(each(functools.partial(_summary, parts), parts.names()))


def _summary(parts: Parts, name: str) -> Summary:
    return Summary.of([parts.read(name, COLUMNS)])


def _forget_export(run: Run, name: str) -> None:
    """It is not kept up to date any more."""
    made = run.record().get("exports", {})
    run.write_record(exports={other: options for other, options in made.items() if other != name})


def open_run(folder: Folder) -> Run:
    return Run(folder, RESULTS, RESULT)


def publish(run: Run, options: ExportOptions, summary: Summary, each: Each = map) -> None:
    """Write the report and the exports of what a run's folder holds, and say so. An export that was made once is kept up to
    date ever after, with the options it was made with: what others still read must not be what no longer holds."""
    record = run.record()
    calibrated = bool((record.get("confidence") or {}).get("calibration"))
    made = dict(record.get("exports", {}))
    for name in FORMATS:
        if name in options.export:
            made[name] = asdict(replace(options, export=(name,)))
        if name in made:
            export = Export(ExportOptions(**made[name]), run.folder, record["root"], calibrated)
            if name in options.export or export.is_there(name):
                log.info("%s", describe_export(name, export.write(name, run.parts, each)))
    if options.table:
        made["table"] = {"table": options.table}
    if "table" in made:
        name = made["table"]["table"]
        log.info("Table %s: %s rows", name, f"{write_table(name, run.parts):,}")
    run.write_record(exports=made)
    write_report(run.folder, run.parts, summary, record, each)
    log.info("Report: %s/report.html", run.folder.uri)
