// The few functions of the C library that shared memory needs, by platform. The only file that imports koffi, and only
// when shared memory is asked for: a client of a remote worker runs without it.

import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import process from "node:process";
import { UnsupportedError } from "../errors.ts";

type Koffi = typeof import("koffi");

/** The system's functions; `reserve` and `mmap` run on koffi's threads, since they touch every page. */
export interface Libc {
  /** Flag of mmap that fills in the page table at once; 0 where there is none. */
  readonly mapPopulate: number;
  /** A descriptor of new, empty, unnamed memory, or -1. */
  createMemory(): number;
  /** Gives the memory its size, with all pages; resolves with 0 or an error number. */
  reserve(fd: number, bytes: number): Promise<number>;
  /** Keeps anyone who has the descriptor from resizing the memory, which would turn our accesses into SIGBUS. */
  seal(fd: number): boolean;
  /** The address, or 2^64 - 1 for failure. */
  mmap(bytes: number, protection: number, flags: number, fd: number): Promise<bigint>;
  munmap(address: bigint, bytes: number): number;
  view(address: bigint, bytes: number): ArrayBuffer;
  /** Name of the error of the last failed call. */
  lastError(): string;
}

let loaded: Libc | undefined;

/** The functions of this platform. @throws UnsupportedError where they are not known, or koffi does not load. */
export async function loadLibc(): Promise<Libc> {
  if (process.platform !== "linux" && process.platform !== "darwin") {
    throw new UnsupportedError(
      `Shared memory needs Linux or macOS, got ${process.platform}. Connect to a worker over \`tcp://\` instead.`,
    );
  }
  if (loaded !== undefined) return loaded;
  let koffi: Koffi;
  try {
    koffi = await import("koffi");
  } catch (cause) {
    throw new UnsupportedError(
      `Shared memory needs the package \`koffi\`, which does not load on ${process.platform}-${process.arch}.`,
      { cause },
    );
  }
  loaded = process.platform === "linux" ? linux(koffi) : macos(koffi);
  return loaded;
}

type Common = Pick<Libc, "mmap" | "munmap" | "view" | "lastError">;

function common(koffi: Koffi, library: ReturnType<Koffi["load"]>): Common {
  const mmap = library.func(
    "void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)",
  );
  const munmap = library.func("int munmap(void *address, size_t length)");
  return {
    mmap: async (bytes, protection, flags, fd) =>
      BigInt.asUintN(64, koffi.address(await onThread(mmap, null, bytes, protection, flags, fd, 0))),
    munmap: (address, bytes) => munmap(address, bytes),
    view: (address, bytes) => koffi.view(address, bytes),
    lastError: () => nameOf(koffi.errno()),
  };
}

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;
const MAP_POPULATE = 0x8000;

function linux(koffi: Koffi): Libc {
  const library = koffi.load(null);
  const memfdCreate = library.func("int memfd_create(const char *name, unsigned int flags)");
  const fallocate = library.func("int posix_fallocate(int fd, int64_t offset, int64_t length)");
  const fcntl = library.func("int fcntl(int fd, int command, ...)");
  return {
    ...common(koffi, library),
    mapPopulate: MAP_POPULATE,
    createMemory: () => memfdCreate("marlin", MFD_CLOEXEC | MFD_ALLOW_SEALING),
    reserve: (fd, bytes) => onThread(fallocate, fd, 0, bytes),
    seal: (fd) => fcntl(fd, F_ADD_SEALS, "int", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) === 0,
  };
}

const O_RDWR_CREAT_EXCL = 0x0002 | 0x0200 | 0x0800;
const OWNER_ONLY = 0o600;

/**
 * Written to the manuals, and never run: no machine of the project has macOS. There are no memfds, so a name exists for
 * the moment between `shm_open` and `shm_unlink`; no seals, and no way to take all pages at once.
 */
function macos(koffi: Koffi): Libc {
  const library = koffi.load("libSystem.dylib");
  const shmOpen = library.func("int shm_open(const char *name, int flags, ...)");
  const shmUnlink = library.func("int shm_unlink(const char *name)");
  const ftruncate = library.func("int ftruncate(int fd, int64_t length)");
  return {
    ...common(koffi, library),
    mapPopulate: 0,
    createMemory: () => {
      // Names are at most 31 characters there.
      const name = `/marlin-${randomBytes(8).toString("hex")}`;
      const fd: number = shmOpen(name, O_RDWR_CREAT_EXCL, "int", OWNER_ONLY);
      if (fd >= 0) shmUnlink(name);
      return fd;
    },
    reserve: async (fd, bytes) => (ftruncate(fd, bytes) === 0 ? 0 : koffi.errno()),
    seal: () => true,
  };
}

function onThread<T>(
  f: { async: (...args: [...unknown[], (error: unknown, result: T) => void]) => void },
  ...args: readonly unknown[]
): Promise<T> {
  return new Promise((resolve, reject) => {
    f.async(...args, (error, result) => (error ? reject(error) : resolve(result)));
  });
}

/** The name of an error number: ENOSPC. */
export function nameOf(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
}
