// The limits of this machine, measured: bytes read per second, and dot products in registers.
// peaks.py compiles and calls it.
//
// Every function runs on threads of its own, made before the clock starts, and returns the seconds
// from the first thread's begin to the last one's end.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "peaks_dot.h"

namespace {

using Clock = std::chrono::steady_clock;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Where every CPU gets a thread each thread has its own, as two of them on one CPU would halve the
// limit. Otherwise the system chooses: the CPU of our choice may be the busy one.
void pin(int thread, int num_threads) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (num_threads < 2 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  if (CPU_COUNT(&allowed) != num_threads) return;
  for (int cpu = 0, nth = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(static_cast<size_t>(cpu), &allowed) || nth++ != thread) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(cpu), &one);
    sched_setaffinity(0, sizeof one, &one);
  }
#else
  static_cast<void>(thread), static_cast<void>(num_threads);
#endif
}

// Runs work(thread) on every thread at once.
template <typename Work>
double run_on_threads(int num_threads, const Work& work) {
  std::atomic<int> num_ready{0};
  std::vector<Clock::time_point> begins(static_cast<size_t>(num_threads));
  std::vector<Clock::time_point> ends(begins);
  const auto body = [&](int thread) {
    pin(thread, num_threads);
    num_ready.fetch_add(1);
    for (int spins = 0; num_ready.load() < num_threads; ++spins) {
      if (spins % 1024 == 1023) {
        std::this_thread::yield();
      } else {
        relax();
      }
    }
    begins[static_cast<size_t>(thread)] = Clock::now();
    work(thread);
    ends[static_cast<size_t>(thread)] = Clock::now();
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < num_threads; ++thread) threads.emplace_back(body, thread);
  for (std::thread& thread : threads) thread.join();
  Clock::time_point begin = begins[0];
  Clock::time_point end = ends[0];
  for (size_t i = 1; i < begins.size(); ++i) {
    if (begins[i] < begin) begin = begins[i];
    if (ends[i] > end) end = ends[i];
  }
  return std::chrono::duration<double>(end - begin).count();
}

constexpr size_t kReadStep = 512;   // bytes of one turn of a read loop; slices are multiples of it
constexpr size_t kPrefetch = 4096;  // bytes ahead: past the page in which the hardware looks ahead

std::atomic<uint64_t> sink{0};  // what keeps the loads alive

uint64_t read_portable(const char* data, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t at = 0; at < bytes; at += sizeof sums) {
    uint64_t words[8];
    std::memcpy(words, data + at, sizeof words);
    for (int i = 0; i < 8; ++i) sums[i] |= words[i];
  }
  uint64_t all = 0;
  for (uint64_t sum : sums) all |= sum;
  return all;
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) uint64_t read_avx2(const char* data, size_t bytes) {
  __m256i sums[8] = {};
  for (size_t at = 0; at < bytes; at += kReadStep) {
    for (size_t line = 0; line < kReadStep; line += 64)
      _mm_prefetch(data + at + line + kPrefetch, _MM_HINT_T0);
    for (size_t i = 0; i < kReadStep / 32; ++i) {
      const auto* source = reinterpret_cast<const __m256i*>(data + at) + i;  // pages are aligned
      sums[i % 8] = _mm256_or_si256(sums[i % 8], _mm256_load_si256(source));
    }
  }
  for (size_t i = 1; i < 8; ++i) sums[0] = _mm256_or_si256(sums[0], sums[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(sums[0], 0));
}

__attribute__((target("avx512f"))) uint64_t read_avx512(const char* data, size_t bytes) {
  __m512i sums[8] = {};
  for (size_t at = 0; at < bytes; at += kReadStep) {
    for (size_t i = 0; i < 8; ++i) {
      _mm_prefetch(data + at + 64 * i + kPrefetch, _MM_HINT_T0);
      sums[i] = _mm512_or_si512(sums[i], _mm512_load_si512(data + at + 64 * i));
    }
  }
  for (size_t i = 1; i < 8; ++i) sums[0] = _mm512_or_si512(sums[0], sums[i]);
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, sums[0]);
  return words[0];
}

#endif

uint64_t read_memory(const char* data, size_t bytes, [[maybe_unused]] int level) {
#if defined(__x86_64__)
  const int allowed = level < best_level() ? level : best_level();
  if (allowed >= kAvx512) return read_avx512(data, bytes);
  if (allowed >= kAvx2) return read_avx2(data, bytes);
#endif
  return read_portable(data, bytes);
}

}  // namespace

extern "C" {

// The best level that this CPU and its system run.
int marlin_peaks_level() { return best_level(); }

// Memory that has been written to, in huge pages where the system gives them; null: there is none.
// Never freed.
void* marlin_peaks_memory(size_t bytes) {
#if defined(__linux__)
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, bytes, MADV_HUGEPAGE);
#else
  void* memory = std::aligned_alloc(4096, bytes);
  if (memory == nullptr) return nullptr;
#endif
  std::memset(memory, 1, bytes);
  return memory;
}

// Seconds in which the threads read `bytes` once, each its own part; bytes is a multiple of 512 *
// num_threads.
double marlin_peaks_read(const char* data, size_t bytes, int num_threads, int level) {
  const size_t part = bytes / static_cast<size_t>(num_threads);
  return run_on_threads(num_threads, [=](int thread) {
    sink.fetch_or(read_memory(data + part * static_cast<size_t>(thread), part, level));
  });
}

// The instruction that multiplies and adds `kind` fastest at `level`; null: not available.
const char* marlin_peaks_instruction(int kind, int level) {
  return find_dot(kind, level).instruction;
}

// Multiplications and additions of one thread's turn.
int64_t marlin_peaks_operations(int kind, int level) { return find_dot(kind, level).operations; }

// Seconds in which every thread makes `turns` turns.
double marlin_peaks_dot(int kind, int level, int num_threads, int64_t turns) {
  const Dot dot = find_dot(kind, level);
  return run_on_threads(num_threads, [&](int) { dot.loop(turns); });
}

}  // extern "C"
