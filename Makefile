# The few commands that people type. `make` alone lists them.
# All of them need a Rust toolchain (1.94 or later) and a C compiler, which builds the embedded SQLite. The tests need a
# PostgreSQL server besides, and install one where there is none.

# dev builds in a minute or two; release takes several and is what to measure or to serve with.
PROFILE ?= dev
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help run test check fix bench check-deps tools postgres format lints tests docs
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

# The tests start servers of their own from these binaries. Nothing is installed where a server is found or named.
POSTGRES_BINARIES = $(wildcard /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
	/usr/local/opt/postgresql*/bin/postgres /usr/pgsql-*/bin/postgres)
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)

postgres:
	@if [ -n "$$TEST_DATABASE_URL" ] || [ -n "$(POSTGRES_BINARIES)" ] || command -v postgres >/dev/null || \
		{ command -v pg_config >/dev/null && [ -x "$$(pg_config --bindir)/postgres" ]; }; then exit 0; \
	elif command -v apt-get >/dev/null; then \
		echo "no PostgreSQL server is installed; installing the package postgresql with apt-get"; \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes postgresql; \
	elif command -v brew >/dev/null; then \
		echo "no PostgreSQL server is installed; installing postgresql with brew"; brew install postgresql; \
	else \
		echo "no PostgreSQL server is installed; install one, or name one by TEST_DATABASE_URL" >&2; exit 1; fi

format: tools
	$(CARGO) fmt --all --check

lints: tools
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

tests: tools postgres
	$(CARGO) test --locked --workspace

docs: tools
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps
