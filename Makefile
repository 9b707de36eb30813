# The few commands that people type. `make` alone lists them.
# All of them need a Rust toolchain (1.94 or later) and a C compiler, which builds the embedded SQLite. `make test` also
# needs the binaries of a PostgreSQL server, and installs them with apt or brew when it finds none.

# dev builds in a minute or two; release takes several and is what to measure or to serve with.
PROFILE ?= dev
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help run test check fix bench check-deps tools server format lints tests docs
# One step at a time: cargo uses every core by itself, and the first failure should be the last thing printed.
.NOTPARALLEL:

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '%-18s %s\n' "$$name" "$$text"; done

run: ## Build and start the bank on the embedded store: HTTP on port 8000, data under ./data (PROFILE=release for speed)
	$(CARGO) run --locked --profile $(PROFILE) --package domain-example --bin bank

test: format lints tests docs ## Everything that CI runs: format, lints, all tests, documentation

check: format lints ## Format and lints only

fix: tools ## Format the code and apply what the lints can mend themselves
	$(CARGO) fmt --all
	$(CARGO) clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged

bench: ## Measure this machine: the store's own limit, one transaction per command, and the runtime
	$(CARGO) run --locked --release --package loadtest -- compare --store sqlite

check-deps: ## Licences, sources and bans of all dependencies; needs cargo-deny, so CI runs it as a job of its own
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing; install it with: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check bans licenses sources

# The steps of `make test`.

tools:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing; see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
		echo "a C compiler is missing; install gcc or clang" >&2; exit 1; }
	@$(CARGO) fmt --version >/dev/null && $(CARGO) clippy --version >/dev/null || { \
		echo "rustfmt or clippy is missing; install them with: rustup component add rustfmt clippy" >&2; exit 1; }

format: tools
	$(CARGO) fmt --all --check

lints: tools
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

# Where the tests look for a server: on the path, and where Debian and Homebrew put it.
SERVERS = $(shell command -v postgres) $(wildcard /usr/lib/postgresql/*/bin/postgres) \
	$(wildcard /opt/homebrew/opt/postgresql*/bin/postgres) $(wildcard /usr/local/opt/postgresql*/bin/postgres)

# The tests start a throw-away PostgreSQL server of their own; its binaries are all that is installed.
server:
ifeq ($(strip $(TEST_DATABASE_URL)$(SERVERS)),)
	@echo "no PostgreSQL server is installed; installing one, which the tests start for themselves"
	@if command -v apt-get >/dev/null; then \
		root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$root apt-get update && $$root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql; \
	elif command -v brew >/dev/null; then brew install postgresql@17; \
	else echo "install PostgreSQL 14 or later, or set TEST_DATABASE_URL to a server that may be used" >&2; exit 1; fi
endif

tests: tools server
	$(CARGO) test --locked --workspace

docs: tools
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps
