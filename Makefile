# `make demo`: the main job on a fresh machine. `make test`: all tests, what .ci/run calls.
# Both set up what they need; run them again and they are quick.

.DEFAULT_GOAL := help
.PHONY: help demo test build setup lint deny header abi install deb wheel clean

help:
	@echo "make demo    a private library's documentation in, code that calls it out, pass@k beside it"
	@echo "make test    all tests"
	@echo "make build   the commands inhouse, evald and inhouse-convert, in target/release"
	@echo "make setup   what building and testing need: system packages, a Python environment, the default model"
	@echo "make lint    rustfmt and clippy, warnings are errors"
	@echo "make deny    licences, advisories and sources of all dependencies (needs cargo-deny)"
	@echo "make header  write include/inhouse.h anew from ffi/src"
	@echo "make abi     record additions to the C ABI in ffi/abi; refuses to record a change"
	@echo "make install libinhouse in PREFIX (/usr/local), with DESTDIR, FEATURES (llama,evald) and MODEL (default, small)"
	@echo "make deb     Debian packages of libinhouse in target/deb"
	@echo "make wheel   the Python package evald, with the daemon in it, in target/wheels"
	@echo "make clean   remove everything that the others made"

setup:
	@scripts/setup.sh

build: setup
	@scripts/build.sh

demo: build
	@scripts/demo.sh

test: export INHOUSE_BUILD_FORM = workspace
test: setup
	@scripts/test.sh

lint: setup
	@scripts/lint.sh

deny:
	@. scripts/common.sh && find_rust && cargo deny check

header:
	@. scripts/common.sh && find_rust && INHOUSE_WRITE_HEADER=1 cargo test --release -p inhouse-ffi --test header

abi:
	@. scripts/common.sh && find_rust && INHOUSE_WRITE_ABI=1 cargo test --release -p inhouse-ffi --test abi

install:
	@scripts/install.sh

deb:
	@scripts/deb.sh

wheel: build
	@scripts/wheel.sh

clean:
	rm -rf target ffi/cxx/target .env
