# Set-up, search, tests, benchmarks and checks. Every install uses constraints.txt, which fixes the
# version of torch but not its build. On Linux the package index has the CUDA build, several
# gigabytes. So uv installs torch first, in the build that TORCH_BACKEND names: cpu, auto (the build
# for the machine's GPU driver), cu130, ...
PYTHON ?= python3
TORCH_BACKEND ?= cpu
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
# uv takes a seventh of pip's time, but does not read pip's settings: where they name an index, or uv
# fails, pip installs.
INSTALL = ! $(BIN)/python -m pip config list | grep -q '\.index-url=' \
  && $(UV_INSTALL) --editable '.[$(1)]' || $(PIP_INSTALL) --editable '.[$(1)]'
INSTALLED := .venv/installed
BENCH_INSTALLED := .venv/bench-installed
CLUSTER_INSTALLED := .venv/cluster-installed
JOBS := tests/cluster/test_head.py::test_a_search_as_a_job_that_is_stopped_and_resumed

.PHONY: tune test test-faults fuzz cluster-check test-nodes test-cluster test-jobs bench lint

tune: $(INSTALLED)
	$(BIN)/python -m recsys.tune --space search_spaces/ncf.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest --ignore tests/faults --ignore tests/cluster

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/faults

fuzz: $(INSTALLED)
	$(BIN)/python -m pytest --hypothesis-profile fuzz \
	  tests/data/test_reader_properties.py tests/data/test_text_rows.py

# Checks the cluster files against the schemas of the programs that read them, and runs
# `ray up cluster.yaml` against a stand-in for AWS.
cluster-check: $(INSTALLED)
	$(BIN)/python -m pytest tests/cluster/test_files.py tests/cluster/test_aws.py

# Runs clusters whose nodes are processes of this machine.
test-nodes: $(INSTALLED)
	$(BIN)/python -m pytest tests/cluster/test_nodes.py tests/cluster/test_spot.py

# Runs `ray up` on hosts that are namespaces of this machine. Needs root, and Debian's iproute2,
# openssh-server, rsync and tmux.
test-cluster: $(INSTALLED)
	$(BIN)/python -m pytest -rs --deselect $(JOBS) \
	  tests/cluster/test_hosts.py tests/cluster/test_head.py

# Installs the extra `cluster`. The other tests run without it, because its packages slow down each
# start of Ray.
test-jobs: $(CLUSTER_INSTALLED)
	$(BIN)/python -m pytest -rs $(JOBS)

bench: $(BENCH_INSTALLED)
	$(BIN)/python -m benchmarks

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) uv && $(UV_INSTALL) --torch-backend $(TORCH_BACKEND) torch || { \
	  test $(TORCH_BACKEND) = cpu && echo >&2 'make: uv found no CPU build of torch: pip installs' \
	  'the build of the package index, on Linux several gigabytes for CUDA.' \
	  && $(PIP_INSTALL) torch; }
	$(call INSTALL,dev)
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(call INSTALL,bench)
	touch $@

$(CLUSTER_INSTALLED): $(INSTALLED)
	$(call INSTALL,cluster)
	touch $@
