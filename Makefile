EXAMPLE ?= cross_entropy
PYTHON ?= python3

.PHONY: run test bench bench-losses bench-vs-pytorch doc fmt lint audit fuzz clean

run: ## Train one example: make run EXAMPLE=huber
	cargo run --example $(EXAMPLE)

test: ## All tests, with everything and with the losses alone
	cargo test
	cargo test --no-default-features

bench: ## Training step, data preparation and growing sizes; then each loss
	cargo bench --bench training
	@$(MAKE) --no-print-directory bench-losses

bench-losses: ## Forward and backward of each loss, as JSON lines; ARGS=--all for more sizes, or ARGS=mse
	@cargo bench --quiet --bench losses -- $(ARGS)

bench-vs-pytorch: ## The same against PyTorch, for the README, in six minutes; needs torch for $(PYTHON)
	$(PYTHON) benches/pytorch/compare.py $(ARGS)

doc: ## The documentation, in the browser
	cargo doc --no-deps --open

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings

audit: ## Licences, sources and known vulnerabilities of what this depends on; needs cargo-deny
	cargo deny check

fuzz: ## Ten minutes of each parser; needs cargo-fuzz
	for target in idx table weights; do \
		mkdir -p fuzz/found/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/found/$$target tests/corpus/$$target -- -max_total_time=600 || exit 1; \
	done

clean:
	cargo clean
