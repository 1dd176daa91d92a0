EXAMPLE ?= cross_entropy
PYTHON ?= python3

.PHONY: run test bench bench-losses bench-vs-pytorch doc book book-serve book-test book-measure fmt lint audit fuzz clean

run: ## Train one example: make run EXAMPLE=huber
	cargo run --example $(EXAMPLE)

test: ## All tests
	cargo test

bench: ## Training step, data preparation and growing sizes; then each loss
	cargo bench -p candle-losses-benches --bench training
	@$(MAKE) --no-print-directory bench-losses

bench-losses: ## Forward and backward of each loss, as JSON lines; ARGS=--all for more sizes, or ARGS=mse
	@cargo bench --quiet -p candle-losses-benches --bench losses -- $(ARGS)

bench-vs-pytorch: ## The same against PyTorch, for the README, in six minutes; needs torch for $(PYTHON)
	$(PYTHON) benches/pytorch/compare.py $(ARGS)

doc: ## The documentation, in the browser
	cargo doc -p candle-losses --features datasets --no-deps --open

book: ## The book, into target/book
	book/build.sh

book-serve: book ## The same, on http://127.0.0.1:8000
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory target/book 8000

book-test: book ## The book's tests, in Chromium; needs Node.js
	cargo test -p candle-losses-book -p candle-losses-book-build
	cd book/tests && npm ci && npm test

book-measure: book ## Sizes, times and steps a second of the book, in Chromium; needs Node.js
	cd book/tests && npm ci && node measure.js

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --workspace --exclude candle-losses-book --exclude candle-losses-book-build --all-targets -- -D warnings
	cargo clippy -p candle-losses --lib --no-default-features -- -D warnings
	cargo clippy --all-targets -p candle-losses-book -p candle-losses-book-build -- -D warnings

audit: ## Licences, sources and known vulnerabilities of what this depends on; needs cargo-deny
	cargo deny check

fuzz: ## Ten minutes of each parser; needs cargo-fuzz
	for target in idx table weights; do \
		mkdir -p fuzz/found/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/found/$$target tests/properties/corpus/$$target -- -max_total_time=600 || exit 1; \
	done

clean:
	cargo clean
