# One line each; the scripts say what they do.
.PHONY: demo test bench image dist

demo: ; @tests/demo.sh
test: ; @tests/run.sh
bench: ; @benches/run.sh
image: ; @job-image/release.sh
dist: ; @krew/dist.sh
