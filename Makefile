# promptfs: `make help` lists the targets.
#
# Objects and programs live in build/<variant>/; the variants are release (default), asan and tsan.

VARIANT ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
DEPS    ?= yes
BUILD   := build/$(VARIANT)
VERSION := $(shell cat VERSION)

PACKAGES := fuse3 jansson yaml-0.1 libpcre2-8 libxxhash libdeflate libutf8proc
# what Debian calls the compiler and the libraries
DEPS_APT := gcc libc6-dev pkg-config libfuse3-dev fuse3 libjansson-dev libyaml-dev libpcre2-dev libxxhash-dev \
            libdeflate-dev libutf8proc-dev libdnnl-dev
# the tests take PNG files apart with python3, look for processes, and run CUDA's kernels as C++
CHECK_APT := python3 procps g++

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
STRICT   := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wwrite-strings -Wvla -Wformat=2 -Wundef -Wno-unused-parameter
CPPFLAGS += -I. -D_GNU_SOURCE -DFUSE_USE_VERSION=312 -DPROMPTFS_VERSION='"$(VERSION)"' \
            -DPROMPTFS_DATADIR='"$(PREFIX)/share/promptfs"'
FLAGS_release := -O2 -g
FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FLAGS_tsan    := -O1 -g -fsanitize=thread
CFLAGS   += $(STRICT) $(FLAGS_$(VARIANT)) -fopenmp -pthread
# the GPU's plugin takes the functions of this list from the program
LDFLAGS  += $(FLAGS_$(VARIANT)) -fopenmp -pthread -Wl,--dynamic-list=kernels/cuda/plugin.list

# V=1 shows the commands
V ?= 0
ifeq ($(V),1)
Q   :=
SAY := @:
else
Q   := @
SAY := @printf '  %-4s %s\n'
endif

# asked when a compiler runs, so that `make help` and `make deps` work on a bare machine
PKG_CFLAGS = $(shell pkg-config --cflags $(PACKAGES))
PKG_LIBS   = $(shell pkg-config --libs $(PACKAGES)) -ldnnl -lm

LIB_SRC  := $(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c engine/*.c cache/*.c) \
            $(filter-out fs/main.c,$(wildcard fs/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
TEST_SRC := $(wildcard tests/unit/*.c)
TEST_BIN := $(TEST_SRC:tests/unit/%.c=$(BUILD)/tests/%)
FUZZED   := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
REPLAYS  := $(FUZZED:%=$(BUILD)/fuzz/%)
BENCH    := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))

# The backend for NVIDIA's GPUs, a shared object of its own.  CUDA=1 builds it or says what is missing, CUDA=0 does without,
# auto builds it where there are a toolkit and a driver.
CUDA ?= auto
ifneq ($(VARIANT),release)
CUDA := 0
endif
ifeq ($(CUDA),auto)
CUDA := $(if $(wildcard /proc/driver/nvidia/version),$(shell kernels/cuda/toolkit >/dev/null 2>&1 && echo 1),0)
endif
# where the toolkit is; its headers are also what the tests of the backend need
$(BUILD)/toolkit.mk: FORCE
	@mkdir -p $(@D)
	@kernels/cuda/toolkit >$@.new 2>/dev/null || echo 'CUDA_FOUND := no' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
-include $(BUILD)/toolkit.mk
ifeq ($(CUDA),1)
PLUGIN := $(BUILD)/promptfs-cuda.so
endif
# those of these that the toolkit knows; the last one's PTX too, for what comes after it
CUDA_ARCHS  ?= 80 86 89 90a 100 120
CUDA_KNOWN  = $(shell $(CUDA_NVCC) --list-gpu-arch 2>/dev/null | sed 's/compute_//')
CUDA_USED   = $(foreach a,$(CUDA_ARCHS),$(if $(filter $(a:%a=%),$(CUDA_KNOWN)),$(a)))
CUDA_FLAGS  = -std=c++17 -O3 --threads 0 -Werror all-warnings -ccbin $(lastword $(CC)) -Xfatbin -compress-all -Xcompiler -fPIC,-Wall,-Wextra,-Wno-unused-parameter \
              $(foreach a,$(CUDA_USED),-gencode arch=compute_$(a),code=sm_$(a)) \
              $(foreach a,$(lastword $(CUDA_USED)),-gencode arch=compute_$(a),code=compute_$(a))
PLUGIN_OBJ := $(patsubst kernels/cuda/%.c,$(BUILD)/cuda/%.o,$(wildcard kernels/cuda/*.c)) \
              $(patsubst kernels/cuda/%.cu,$(BUILD)/cuda/%.cu.o,$(wildcard kernels/cuda/*.cu))

# the CUDA kernels on the host (tests/cuda/shim.h), with what their tests need
CUDA_TESTS := kernels kernels_contract launch
CUDA_HOST  := $(patsubst %.cu,$(BUILD)/%.host.o,$(wildcard kernels/cuda/*.cu)) \
              $(BUILD)/tests/cuda/shim.o $(BUILD)/tests/cuda/host.o \
              $(patsubst %.c,$(BUILD)/%.o,$(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c) engine/fp8.c engine/rng.c)

# and the whole backend on it, with a fake of CUDA's libraries; what cuDNN itself thinks of the graphs
ifeq ($(CUDA_FOUND) $(VARIANT),yes release)
FAKE     := $(BUILD)/fake/promptfs-cuda.so
CUDA_DNN := $(BUILD)/tests/cuda/cudnn
endif
FAKE_OBJ := $(patsubst kernels/cuda/%.c,$(BUILD)/cuda/%.o,$(filter-out %/graph.c,$(wildcard kernels/cuda/*.c))) \
            $(patsubst tests/cuda/fake/%.c,$(BUILD)/fake/%.o,$(wildcard tests/cuda/fake/*.c)) $(BUILD)/fake/fp8.o \
            $(filter %.host.o,$(CUDA_HOST)) $(BUILD)/tests/cuda/shim.o

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: FORCE cuda-host all help deps check check-long demo asan tsan lint format fuzz bench install tests clean eval-model

all: $(BUILD)/promptfs $(PLUGIN) ## build ./promptfs (CUDA=1: and its plugin for GPUs)
	@ln -sfn $(BUILD)/promptfs promptfs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | sort

deps: ## install what Debian's packages provide and is missing (DEPS=no only says what)
	@command -v dpkg-query >/dev/null || { echo "not Debian: install $(DEPS_APT) or their like by hand"; exit 0; }; \
	missing=""; \
	for p in $(DEPS_APT); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	if [ "$(DEPS)" = no ]; then echo "missing, install with: $$sudo apt-get install$$missing"; exit 1; fi; \
	echo "installing with apt-get:$$missing"; \
	$$sudo apt-get -qq update && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null

demo: ## set up, build, and paint three pictures through a mount
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j2 all
	@examples/demo.sh ./promptfs

check: ## set up, build, and run every test
	@$(MAKE) --no-print-directory deps DEPS_APT="$(DEPS_APT) $(CHECK_APT)"
	@$(MAKE) --no-print-directory -j2 all tests
	@$(MAKE) --no-print-directory -j2 VARIANT=asan cuda-host
	@tests/run $(BUILD)

check-long: ## what takes longer: 100,000 prompts, pjdfstest (PJDFSTEST=DIR, as root), many crashes
	@$(MAKE) --no-print-directory deps DEPS_APT="$(DEPS_APT) $(CHECK_APT)"
	@$(MAKE) --no-print-directory -j2 all
	@TEST_SECONDS=7200 PROMPTFS_TESTS=long VERBOSE=1 tests/run $(BUILD)

asan: ## the unit tests, and a mount, under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -j2 VARIANT=asan build/asan/promptfs tests
	@ASAN_OPTIONS=suppressions=$(CURDIR)/tests/fs/asan.supp PROMPTFS_TESTS='unit cuda fuzz read end' tests/run build/asan

# OpenMP's barriers are unknown to it, so nothing that computes
TSAN_TESTS := cache jobs jobs_end jobs_workers log queue wire
tsan: ## the tests with threads of our own, and those of CUDA's kernels, under ThreadSanitizer
	@$(MAKE) --no-print-directory -j2 VARIANT=tsan build/tsan/promptfs $(TSAN_TESTS:%=build/tsan/tests/%) cuda-host
	@TSAN_OPTIONS=handle_segv=0 PROMPTFS_TESTS='$(TSAN_TESTS:%=unit/%) cuda' tests/run build/tsan

lint: ## module boundaries, formatting, and the strictest warnings
	@tests/lint

format: ## clang-format on every C file
	@clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu')

tests: $(TEST_BIN) $(REPLAYS) $(CUDA_TESTS:%=$(BUILD)/tests/cuda/%) $(FAKE) $(CUDA_DNN)

cuda-host: $(CUDA_TESTS:%=$(BUILD)/tests/cuda/%)

bench: all $(BENCH) ## speed of the kernels (never passes or fails)
	@for b in $(BENCH); do $$b || exit 1; done

MODEL ?= models/pocket
PYTHON ?= python3
eval-model: ## how well MODEL paints what it is asked: figures, and a sheet in $(BUILD) (DATA=DIR; needs PyTorch and diffusers)
	@[ -n "$(DATA)" ] || { echo "eval-model: DATA=DIR must name the drawings; training/README.md says where they come from"; exit 1; }
	@mkdir -p $(BUILD)
	@$(PYTHON) training/evaluate.py $(MODEL) $(DATA) --sheet $(BUILD)/sheet.png --json $(BUILD)/figures.json

# what reads bytes from elsewhere, with what that needs
PARSERS := tests/fuzz/no_kernels.c kernels/status.c kernels/tensor.c $(addprefix engine/,bytes.c content.c fp8.c gguf.c gguf_blocks.c gguf_grids.c json.c \
           derive.c lora.c lora_names.c lora_product.c names.c pickle.c png.c random_weights.c recipe.c recipe_fields.c \
           recipe_text.c rng.c rng_tensor.c safetensors.c stored.c survey.c text.c weights.c zip.c) \
           $(wildcard engine/tokenizer*.c engine/sampler*.c) \
           $(addprefix fs/,config.c config_yaml.c control_lines.c escape.c prompt.c \
           prompt_items.c wire.c)
FUZZ_CC := clang -std=c11 -pthread -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
FUZZ_SECONDS ?= 60
fuzz: $(FUZZED:%=build/fuzz/%) ## libFuzzer on every parser, FUZZ_SECONDS each (needs clang)
	@for t in $(FUZZED); do \
		mkdir -p build/fuzz/corpus/$$t tests/fuzz/crashers/$$t; \
		echo "== $$t, $(FUZZ_SECONDS) s"; \
		build/fuzz/$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=tests/fuzz/crashers/$$t/ build/fuzz/corpus/$$t tests/fuzz/seeds/$$t || exit 1; \
		rmdir tests/fuzz/crashers/$$t; \
	done

build/fuzz/%: build/fuzz/tests/fuzz/fuzz_%.o $(PARSERS:%.c=build/fuzz/%.o)
	$(SAY) LINK $@
	$(Q)$(FUZZ_CC) -o $@ $^ $(PKG_LIBS)

build/fuzz/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(FUZZ_CC) $(CPPFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

install: all ## PREFIX=/usr/local DESTDIR=
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/promptfs $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install $(BUILD)/promptfs $(DESTDIR)$(PREFIX)/bin/promptfs
	install examples/service/mount.fuse.promptfs $(DESTDIR)$(PREFIX)/sbin/
	install -D -m 644 examples/service/promptfs.service $(DESTDIR)$(PREFIX)/lib/systemd/user/promptfs.service
	cp -R models $(PLUGIN) $(DESTDIR)$(PREFIX)/share/promptfs/
	install -m 644 man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 completion/promptfs.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/promptfs

clean: ## remove what was built
	rm -rf build promptfs

$(BUILD)/promptfs: $(BUILD)/fs/main.o $(LIB_OBJ)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/promptfs-cuda.so: $(PLUGIN_OBJ)
	$(SAY) LINK $@
	$(Q)$(CC) -shared $(FLAGS_$(VARIANT)) -fopenmp -pthread -o $@ $(PLUGIN_OBJ) $(CUDA_LIBS) -lstdc++ -ldl -lrt -lm

# says what is missing where that is so
$(PLUGIN_OBJ): $(BUILD)/toolkit.mk
ifneq ($(CUDA_FOUND),yes)
	@kernels/cuda/toolkit
endif

$(BUILD)/cuda/%.o: kernels/cuda/%.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(CUDA_INCLUDES) $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<

$(BUILD)/cuda/%.cu.o: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(CUDA_NVCC) $(CUDA_FLAGS) -I. -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/cuda/kernels $(BUILD)/tests/cuda/kernels_contract: $(BUILD)/tests/cuda/%: $(BUILD)/tests/unit/%.o $(CUDA_HOST)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/cuda/launch: $(BUILD)/tests/cuda/launch.o $(CUDA_HOST)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/fake/promptfs-cuda.so: $(FAKE_OBJ)
	$(SAY) LINK $@
	$(Q)$(CC) -shared $(FLAGS_$(VARIANT)) -fopenmp -pthread -o $@ $^ -lstdc++ -lm

$(BUILD)/fake/%.o: tests/cuda/fake/%.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(CUDA_INCLUDES) $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<

$(BUILD)/fake/fp8.o: engine/fp8.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<

# cuDNN without a device asks for a driver all the same
$(CUDA_DNN): tests/cuda/cudnn.c tests/cuda/driver.c kernels/cuda/graph.c kernels/cuda/graph.h tests/unit/check.h Makefile
	@mkdir -p $(@D)/driver
	$(SAY) CC $@
	$(Q)$(CC) -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o $(@D)/driver/libcuda.so.1 tests/cuda/driver.c
	$(Q)$(CC) $(CPPFLAGS) $(CUDA_INCLUDES) $(CFLAGS) -o $@ $(filter %cudnn.c %graph.c,$^) $(CUDA_LIBS) \
		-Wl,--no-as-needed $(@D)/driver/libcuda.so.1 -Wl,-rpath,'$$ORIGIN/driver' -lstdc++ -ldl -lrt -lm

CXXFLAGS := -fPIC -std=c++17 -fno-exceptions -fno-rtti -fno-threadsafe-statics -Wall -Wextra -Wno-unknown-pragmas

$(BUILD)/kernels/cuda/%.host.o: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	$(SAY) CXX $<
	$(Q)$(CXX) -I. -Itests/cuda $(CXXFLAGS) $(FLAGS_$(VARIANT)) -MMD -MP -x c++ -c -o $@ $<

# without sanitizers, which it tells what its fibres do
$(BUILD)/tests/cuda/shim.o: tests/cuda/shim.cc Makefile
	@mkdir -p $(@D)
	$(SAY) CXX $<
	$(Q)$(CXX) -I. $(CXXFLAGS) -O2 -g -MMD -MP -c -o $@ $<

# without a fuzzer: gives the target its seeds and what once crashed
$(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# PNG's filters are loops over bytes: as vectors they take 1.1 ms at 512x512, otherwise 6.2
$(BUILD)/engine/png.o: CFLAGS += -O3
# the kernels are the only place where the compiler may assume more about floats than C does; -std=c11 would keep it from
# joining products and sums
$(BUILD)/kernels/cpu/%.o: CFLAGS += -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast

$(BUILD)/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(CUDA_HOST:.o=.d) $(CUDA_TESTS:%=$(BUILD)/tests/cuda/%.d) $(LIB_OBJ:.o=.d) $(PLUGIN_OBJ:.o=.d) $(FAKE_OBJ:.o=.d) $(BUILD)/fs/main.d $(TEST_SRC:%.c=$(BUILD)/%.d) \
         $(FUZZED:%=$(BUILD)/tests/fuzz/fuzz_%.d) $(FUZZED:%=build/fuzz/tests/fuzz/fuzz_%.d) $(PARSERS:%.c=build/fuzz/%.d)
