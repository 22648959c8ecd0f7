# make install | demo | test | lint | run      every target does its own set-up

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= msc-edge-demo
# A file that comes or goes must be linked into the editable install: folders change their date then.
FOLDERS := $(shell find msc_edge train export runtime -type d -not -name __pycache__)

.PHONY: install demo test test-slow soak lint format run docs clean

install: .venv/installed

.venv/installed: pyproject.toml $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=strict --editable '.[dev]'
	touch $@

# The quick suite: minutes. The slow part trains on real pictures and installs the wheel into a bare environment.
test: install
	$(BIN)/pytest -n auto -m 'not slow'

test-slow: install
	$(BIN)/pytest -m slow

# A stream for so many minutes, with the demo's kit: does it grow? Needs GStreamer's RTSP server; see docs/results.md.
MINUTES ?= 60
soak: install
	test -d '$(DEMO)/kit' || $(MAKE) demo
	$(BIN)/python benchmarks/soak.py '$(DEMO)/kit' ../shared/data/video/bottle-detection.mp4 --minutes $(MINUTES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	# Not from the top folder, whose msc_edge/ would hide the installed package.
	cd tests && ../$(BIN)/lint-imports --config ../pyproject.toml --no-cache

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Draws parts, trains, exports, scores; needs no network once installed. Leaves everything in DEMO.
demo: install
	$(BIN)/msc-edge demo --out '$(DEMO)' --overwrite

# The main job. NORMAL: pictures of good parts. PICTURES: what is to be scored. BACKBONE: one of torchvision's instead
# of edge-small, with WEIGHTS from a file where no network reaches them. Leaves run/, kit/ and scores.csv in OUT.
OUT ?= out
run: install
	@test -n '$(NORMAL)' -a -n '$(PICTURES)' || { echo 'usage: make run NORMAL=DIR PICTURES=DIR [BACKBONE=NAME] [WEIGHTS=FILE] [OUT=DIR]'; exit 2; }
	$(BIN)/msc-edge train --normal '$(NORMAL)' --out '$(OUT)/run' $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(TRAIN)
	$(BIN)/msc-edge export '$(OUT)/run' --out '$(OUT)/kit'
	$(BIN)/msc-edge score '$(OUT)/kit' '$(PICTURES)' --out '$(OUT)/scores.csv'

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache *.egg-info
