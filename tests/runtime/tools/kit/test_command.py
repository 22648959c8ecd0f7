"""`msc-edge info`, `verify` and `upgrade`; tests/test_cli.py runs them as processes."""

import json
import shutil

from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class TestInfo:
    def test_json_is_the_manifest_in_the_current_format(self, toy_kit, written_by_0_1_0):
        for kit in (toy_kit, written_by_0_1_0 / "format-1.kit"):
            manifest = parse_manifest((kit / MANIFEST).read_bytes(), name=kit.stem)
            assert json.loads(run("info", kit, "--json").stdout) == json.loads(manifest.to_json())

    def test_the_facts_are_printed(self, toy_kit):
        done = run("info", toy_kit)
        assert (done.exit_code, done.stderr) == (0, "")
        for part in ("backbone: toy_pixels", "warn: score above", "above the target of 1 %", "size: 16 files"):
            assert part in done.stdout

    def test_a_missing_kit_is_exit_code_4(self, tmp_path):
        done = run("info", tmp_path / "none")
        assert (done.exit_code, done.stderr.count("\n")) == (4, 1)
        assert "cannot be opened (No such file or directory); check the path" in done.stderr


class TestVerify:
    def test_a_valid_kit_is_one_line(self, toy_kit, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
        for kit in (toy_kit, zipped):
            done = run("verify", kit)
            assert (done.exit_code, done.stderr) == (0, "")
            assert done.stdout.startswith(f"ok: {kit}: 16 files and the manifest, ")
            assert done.stdout.count("\n") == 1

    def test_a_damaged_kit_is_one_line_and_exit_code_4(self, kit):
        (kit / "thumbnails" / "00003.jpg").write_bytes(b"x")
        done = run("verify", kit)
        assert (done.exit_code, done.stdout) == (4, "")
        assert done.stderr.startswith(f"error: {kit}: thumbnails/00003.jpg: ")
        assert done.stderr.count("\n") == 1

    def test_a_file_that_is_no_zip_is_exit_code_4(self, tmp_path):
        (tmp_path / "notes.txt").write_text("not a kit")
        done = run("verify", tmp_path / "notes.txt")
        assert (done.exit_code, "not a zip" in done.stderr) == (4, True)


class TestUpgrade:
    def test_an_older_kit_is_written_in_the_current_format(self, written_by_0_1_0, tmp_path):
        done = run("upgrade", written_by_0_1_0 / "format-1.kit", "--out", tmp_path / "new.kit")
        assert (done.exit_code, done.stderr) == (0, "")
        sha256 = (tmp_path / "new.kit" / "manifest.sha256").read_text()[:12]
        assert done.stdout == f"{tmp_path / 'new.kit'}: format 1 -> 2, SHA-256 {sha256}\n"

    def test_a_current_kit_is_left_as_it_is(self, kit):
        before = (kit / MANIFEST).read_bytes()
        assert run("upgrade", kit).stdout == f"{kit}: has the current format already\n"
        assert (kit / MANIFEST).read_bytes() == before
        assert run("upgrade", kit, "--out", kit.parent / "new.kit").exit_code == 2
