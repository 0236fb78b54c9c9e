# Shortcuts for people; the work is done in scripts/.

PREFIX ?= /usr/local
CNI_BIN_DIR ?= /opt/cni/bin
CARGO_TARGET_DIR ?= target

.PHONY: build demo test bench lint install clean

build:
	scripts/build

demo:
	scripts/demo

test:
	scripts/test

bench:
	scripts/bench

lint:
	scripts/lint

install:
	install -D -m 755 -t $(DESTDIR)$(CNI_BIN_DIR) $(CARGO_TARGET_DIR)/release/weft
	ln -f $(DESTDIR)$(CNI_BIN_DIR)/weft $(DESTDIR)$(CNI_BIN_DIR)/weft-ipam
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin $(CARGO_TARGET_DIR)/release/weftd
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(CARGO_TARGET_DIR)/release/weftctl

clean:
	cargo clean
