# `make demo` and `make test` do all their own set-up. Everything they download or write stays in this folder.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# scripts/servers unpacks servers here that are not installed.
export PATH := $(CURDIR)/.cache/servers/usr/bin:$(PATH)

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Two processes, each with one half of the tests. The first to finish takes over a part of the other's, so that most
# tests that share a server stay together.
HALVES := --numprocesses 2 --dist worksteal

# pip and uv cache in the home directory by default.
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export UV_CACHE_DIR := $(CURDIR)/.cache/uv

.PHONY: help demo live test test-all test-long test-systemd bench release generated pictures lint types format deb lock environment servers clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo:  ## simulated chips and real servers through an outage: live readings, and proof that nothing is lost
	@scripts/environment .venv-demo requirements.txt
	@scripts/servers prometheus-pushgateway victoria-metrics
	@.venv-demo/bin/python -m scripts.demo

live:  ## simulated chips, a Pushgateway, Prometheus and the agent's page until Ctrl-C; prints their addresses
	@scripts/environment .venv-demo requirements.txt
	@scripts/servers prometheus-pushgateway prometheus
	@.venv-demo/bin/python -m scripts.live

test: environment servers lint types  ## lint, types and all tests that take less than ten minutes in total
	$(PYTEST) $(HALVES) -m "not long"

test-long: environment servers  ## the tests that take minutes
	$(PYTEST) $(HALVES) -m "long and not (alone or systemd)"
	$(PYTEST) -m "long and alone"

test-systemd: environment servers deb  ## install and run wattpush in a Debian that boots its own systemd; needs root
	@scripts/machine $(VENV)
	$(PYTEST) -m systemd

test-all: servers  ## `make test` without lint and types, on every Python from 3.10 to 3.13
	scripts/test-all

bench: environment servers  ## compare wattpush with the stock libraries: writes docs/benchmarks.md
	$(BIN)/python -m bench

release: environment  ## wheel, sdist, .deb, SBOM and checksums of this commit in dist/, tried in an empty environment
	@$(BIN)/python -m scripts.release

generated: environment  ## regenerate files from the code: references, dashboards, completions, manual page, pictures
	$(BIN)/python -m scripts.references
	$(BIN)/python -m scripts.dashboards
	$(BIN)/python -m scripts.command_line
	$(BIN)/python -m scripts.watch_picture

pictures: environment  ## the pictures of the live page in docs/, with a real Chromium
	@scripts/browser
	$(BIN)/python -m scripts.page_picture

lint: environment  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment  ## mypy, strict
	$(BIN)/mypy

format: environment  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

environment:
	@scripts/environment $(VENV) requirements-dev.txt

servers:
	@scripts/servers prometheus-pushgateway prometheus prometheus-alertmanager victoria-metrics nginx tmux
	@scripts/browser

deb: environment  ## the Debian package: dist/wattpush_VERSION_all.deb, for every processor
	@scripts/deb $(VENV)

lock: environment  ## regenerate the requirements files from pyproject.toml
	scripts/lock $(VENV)

clean:  ## remove everything that make has created
	rm -rf .venv .venv-demo .venv-3.* .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
