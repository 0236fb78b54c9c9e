# Shortcuts for people; the work is done in scripts/.

PREFIX ?= /usr/local
CNI_BIN_DIR ?= /opt/cni/bin

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
	install -D -m 755 -t $(DESTDIR)$(CNI_BIN_DIR) target/release/weft target/release/weft-ipam
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin target/release/weftd
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin target/release/weftctl

clean:
	cargo clean
