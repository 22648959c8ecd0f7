# make install | demo | test | lint | run | wheelhouse      every target installs what it needs

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= msc-edge-demo
# The editable install links each file. A folder's date changes when a file is added or removed.
FOLDERS := $(shell find msc_edge train export runtime -type d -not -name __pycache__)

.PHONY: install demo test test-slow test-long soak lint format run docs wheelhouse clean

install: .venv/installed

.venv/installed: pyproject.toml $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=strict --editable '.[dev]'
	touch $@

# The quick suite. The slow tests train, install the wheel into a bare environment and drive the pages of the studio; the
# long ones run the whole demo and every command without a network.
test: install  # neighbours run in one worker, which makes their kits, runs and servers once
	$(BIN)/pytest -n auto --dist worksteal -m 'not slow and not long'

# Each worker imports the files with slow tests only. By file: the tests of one share a training or an environment.
test-slow: install
	$(BIN)/pytest -n auto --dist loadfile -m 'slow and not long' $$(grep -rl 'pytest\.mark\.slow' tests --include='test_*.py')

test-long: install
	$(BIN)/pytest -n auto -m long

# Runs a stream with the demo's kit and reports growth of memory, threads and files. Needs GStreamer's RTSP server.
MINUTES ?= 60
soak: install
	test -d '$(DEMO)/kit' || $(MAKE) demo
	$(BIN)/python benchmarks/soak.py '$(DEMO)/kit' ../shared/data/video/bottle-detection.mp4 --minutes $(MINUTES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	# Run from tests/: in the top folder msc_edge/ would hide the installed package.
	cd tests && ../$(BIN)/lint-imports --config ../pyproject.toml --no-cache

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Draws parts, trains, exports, scores; needs no network once installed. Writes everything to DEMO.
demo: install
	$(BIN)/msc-edge demo --out '$(DEMO)' --overwrite

# Trains on the images in NORMAL, exports a kit, and scores IMAGES with it. BACKBONE: a backbone of torchvision instead of
# edge-small, with WEIGHTS from a file where there is no network. Writes run/, kit/ and scores.csv to OUT.
OUT ?= out
ifdef PICTURES
$(warning PICTURES= is deprecated; use IMAGES=)
IMAGES ?= $(PICTURES)
endif
# Checked here, before the installation starts.
ifeq ($(filter run,$(MAKECMDGOALS)),run)
ifeq ($(and $(NORMAL),$(IMAGES)),)
$(error usage: make run NORMAL=DIR IMAGES=DIR [BACKBONE=NAME] [WEIGHTS=FILE] [OUT=DIR])
endif
endif
run: export NORMAL := $(NORMAL)
run: export IMAGES := $(IMAGES)
run: export OUT := $(OUT)
run: export BACKBONE := $(BACKBONE)
run: export WEIGHTS := $(WEIGHTS)
run: install  # the shell reads the names from its environment, so that they may have any character
	$(BIN)/msc-edge train --normal "$$NORMAL" --out "$$OUT/run" $(if $(BACKBONE),--backbone "$$BACKBONE") $(if $(WEIGHTS),--weights "$$WEIGHTS") $(TRAIN)
	$(BIN)/msc-edge export "$$OUT/run" --out "$$OUT/kit"
	$(BIN)/msc-edge score "$$OUT/kit" "$$IMAGES" --out "$$OUT/scores.csv"

docs: install
	$(BIN)/python docs/generate.py

# The wheel of this folder with all that it needs, for PCs without network that have this system, processor and Python.
# EXTRAS: of pyproject.toml, such as train,web. hnswlib is built for any processor of this type.
WHEELHOUSE ?= dist/wheelhouse
wheelhouse:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -rf '$(WHEELHOUSE)' build/lib  # setuptools would add the modules of earlier builds that are there
	HNSWLIB_NO_NATIVE=1 $(BIN)/python -m pip wheel --quiet --wheel-dir '$(WHEELHOUSE)' '.$(if $(EXTRAS),[$(EXTRAS)])'

clean:
	rm -rf build dist .pytest_cache .ruff_cache *.egg-info
