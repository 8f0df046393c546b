// Blocks and warps that reduce, scan, sort and exchange through CUB: one kernel per primitive.
//
// Each block of kThreads threads has kItems neighbouring elements per thread.

#include <cub/cub.cuh>

namespace {

constexpr int kThreads = 128;
constexpr int kItems = 4;
constexpr int kTile = kThreads * kItems;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 64;

template <typename T>
__device__ void load(const T* in, T (&items)[kItems]) {
  for (int i = 0; i < kItems; ++i) {
    items[i] = in[blockIdx.x * kTile + threadIdx.x * kItems + i];
  }
}

template <typename T>
__device__ void store(T* out, const T (&items)[kItems]) {
  for (int i = 0; i < kItems; ++i) {
    out[blockIdx.x * kTile + threadIdx.x * kItems + i] = items[i];
  }
}

struct Less {
  template <typename T>
  __device__ bool operator()(const T& a, const T& b) const {
    return a < b;
  }
};

struct Larger {
  __device__ int operator()(int a, int b) const { return a > b ? a : b; }
};

template <cub::BlockReduceAlgorithm algorithm>
__device__ void reduce(const int* in, int* out) {
  using Reduce = cub::BlockReduce<int, kThreads, algorithm>;
  __shared__ typename Reduce::TempStorage storage;
  int items[kItems];
  load(in, items);
  const int sum = Reduce(storage).Sum(items);
  __syncthreads();  // the storage is used again
  const int largest = Reduce(storage).Reduce(items, Larger());
  if (threadIdx.x == 0) {
    out[2 * blockIdx.x] = sum;
    out[2 * blockIdx.x + 1] = largest;
  }
}

template <cub::BlockScanAlgorithm algorithm>
__device__ void scan(const int* in, int* out, int* totals) {
  using Scan = cub::BlockScan<int, kThreads, algorithm>;
  __shared__ typename Scan::TempStorage storage;
  int items[kItems];
  load(in, items);
  int total = 0;
  Scan(storage).ExclusiveSum(items, items, total);
  store(out, items);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

template <cub::BlockHistogramAlgorithm algorithm>
__device__ void histogram(const unsigned char* in, unsigned* counts) {
  using Histogram = cub::BlockHistogram<unsigned char, kThreads, kItems, kBins, algorithm>;
  __shared__ typename Histogram::TempStorage storage;
  __shared__ unsigned bins[kBins];
  unsigned char items[kItems];
  load(in, items);
  Histogram(storage).Histogram(items, bins);
  __syncthreads();
  if (threadIdx.x < kBins) counts[blockIdx.x * kBins + threadIdx.x] = bins[threadIdx.x];
}

}  // namespace

extern "C" __global__ void reduce_warps(const int* in, int* out) {
  reduce<cub::BLOCK_REDUCE_WARP_REDUCTIONS>(in, out);
}

extern "C" __global__ void reduce_raking(const int* in, int* out) {
  reduce<cub::BLOCK_REDUCE_RAKING>(in, out);
}

extern "C" __global__ void scan_warps(const int* in, int* out, int* totals) {
  scan<cub::BLOCK_SCAN_WARP_SCANS>(in, out, totals);
}

extern "C" __global__ void scan_raking(const int* in, int* out, int* totals) {
  scan<cub::BLOCK_SCAN_RAKING>(in, out, totals);
}

// out[warp] of float32.
extern "C" __global__ void warp_sums(const float* in, float* out) {
  using Reduce = cub::WarpReduce<float>;
  __shared__ typename Reduce::TempStorage storage[kWarps];
  const int warp = threadIdx.x / 32;
  const float sum = Reduce(storage[warp]).Sum(in[blockIdx.x * kThreads + threadIdx.x]);
  if (threadIdx.x % 32 == 0) out[blockIdx.x * kWarps + warp] = sum;
}

extern "C" __global__ void radix_sort(const unsigned* in, unsigned* out) {
  using Sort = cub::BlockRadixSort<unsigned, kThreads, kItems>;
  __shared__ typename Sort::TempStorage storage;
  unsigned items[kItems];
  load(in, items);
  Sort(storage).Sort(items);
  store(out, items);
}

// Stable: equal keys keep the order of their values.
extern "C" __global__ void radix_sort_pairs(const float* in, float* out, int* order) {
  using Sort = cub::BlockRadixSort<float, kThreads, kItems, int>;
  __shared__ typename Sort::TempStorage storage;
  float keys[kItems];
  int values[kItems];
  load(in, keys);
  for (int i = 0; i < kItems; ++i) values[i] = threadIdx.x * kItems + i;
  Sort(storage).SortDescending(keys, values);
  store(out, keys);
  store(order, values);
}

extern "C" __global__ void merge_sort(const long long* in, long long* out) {
  using Sort = cub::BlockMergeSort<long long, kThreads, kItems>;
  __shared__ typename Sort::TempStorage storage;
  long long items[kItems];
  load(in, items);
  Sort(storage).Sort(items, Less());
  store(out, items);
}

// Adds 1000 times the thread to each of its elements, loaded and stored through shared memory.
extern "C" __global__ void load_and_store(const int* in, int* out, int valid) {
  using Load = cub::BlockLoad<int, kThreads, kItems, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
  using Store = cub::BlockStore<int, kThreads, kItems, cub::BLOCK_STORE_TRANSPOSE>;
  __shared__ union {
    typename Load::TempStorage load;
    typename Store::TempStorage store;
  } storage;
  const int start = blockIdx.x * kTile;
  int items[kItems];
  Load(storage.load).Load(in + start, items, valid - start, -1);
  for (int& item : items) item += 1000 * static_cast<int>(threadIdx.x);
  __syncthreads();  // one storage for both
  Store(storage.store).Store(out + start, items, valid - start);
}

// Item i of thread t is element i * kThreads + t of the tile before, and t * kItems + i after.
extern "C" __global__ void striped_to_blocked(const double* in, double* out) {
  using Exchange = cub::BlockExchange<double, kThreads, kItems>;
  __shared__ typename Exchange::TempStorage storage;
  double items[kItems];
  load(in, items);
  Exchange(storage).StripedToBlocked(items, items);
  store(out, items);
}

extern "C" __global__ void histogram_atomic(const unsigned char* in, unsigned* counts) {
  histogram<cub::BLOCK_HISTO_ATOMIC>(in, counts);
}

extern "C" __global__ void histogram_sort(const unsigned char* in, unsigned* counts) {
  histogram<cub::BLOCK_HISTO_SORT>(in, counts);
}
