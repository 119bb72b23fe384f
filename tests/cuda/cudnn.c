/* cudnn: that the installed cuDNN has plans for the graphs of kernels/cuda/graph.c, asked without a device: a plan can
 * be made for one that is only described (cuDNN 9.8).  The shapes are those of the models; what has no plan must be
 * what dnn.c leaves to the own kernels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/graph.h"
#include "tests/unit/check.h"

static const int64_t WORKSPACE = (int64_t)256 << 20;

struct device {
	const char *name;
	int version, processors, shared; /* 900; their number; bytes of shared memory a block may ask for */
};

static const struct device devices[] = { { "sm_80", 800, 108, 166912 }, { "sm_90", 900, 132, 232448 },
	{ "sm_120", 1200, 170, 101376 } };

/* The description that cuDNN itself would write. */
static cudnnStatus_t describe(const struct device *d, cudnnBackendDescriptor_t *out)
{
	char text[2048];
	int len = snprintf(text, sizeof text,
		"{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
		"\"multiProcessorCount\":%d,\"smCountOrigin\":0,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
		"\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,"
		"\"oversizedSharedMemoryPerBlock\":0,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
		"\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
		"\"supportCoopLaunch\":1,\"totalGlobalMem\":85899345920,\"smClockRateKHz\":1980000,"
		"\"memClockRateKHz\":2619000,\"memoryBusWidth\":5120,\"l2CacheSize\":52428800,\"cudaDeviceId\":0,"
		"\"deviceVer\":%d,\"driverVer\":13000,\"deviceName\":\"%s\"}",
		d->processors, d->shared, d->version, d->name);
	cudnnStatus_t s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, out);

	if (!s)
		s = cudnnBackendSetAttribute(
			*out, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, len + 1, text);
	return s ? s : cudnnBackendFinalize(*out);
}

static void report(const struct device *d, const char *name, struct graph_plan *plan, bool wanted, const char *why)
{
	check_case((plan->plan != NULL) == wanted, why, "%s: %s %s", d->name, name, wanted ? "has a plan" : "has none");
	if (plan->plan)
		cudnnBackendDestroyDescriptor(plan->plan);
}

static void test_convs(const struct device *d, const struct graph_target *t)
{
	static const struct {
		const char *name;
		bool possible;
		struct graph_conv shape;
	} cases[] = {
		{ "convolution 512 to 512, bias, bf16", true,
			{ 64, 64, 512, 64, 64, 512, 64 * 512, 3, 1, 1, 1, 1, 0 } },
		{ "convolution 512 to 512, bias, f32", true, { 64, 64, 512, 64, 64, 512, 64 * 512, 3, 1, 1, 1, 1, 1 } },
		{ "a band of an enlarged picture", true, { 66, 64, 512, 64, 64, 512, 64 * 512, 3, 1, 0, 1, 1, 0 } },
		{ "one that is cut to an odd width", true, { 65, 63, 512, 63, 63, 512, 64 * 512, 3, 1, 0, 1, 1, 0 } },
		{ "every second place", true, { 64, 64, 320, 32, 32, 320, 64 * 320, 3, 2, 1, 1, 1, 0 } },
		{ "latents of 4 channels", true, { 64, 64, 4, 64, 64, 320, 64 * 4, 3, 1, 1, 1, 1, 0 } },
		{ "to 3 channels", true, { 128, 128, 128, 128, 128, 3, 128 * 128, 3, 1, 1, 1, 1, 1 } },
		{ "7 to 5 channels", false, { 9, 9, 7, 9, 9, 5, 9 * 7, 3, 1, 1, 1, 1, 1 } },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct graph_plan plan;
		char why[400] = "";

		graph_plan_conv(t, &cases[i].shape, WORKSPACE, &plan, why, sizeof why);
		report(d, cases[i].name, &plan, cases[i].possible, why);
	}
}

static void test_attention(const struct device *d, const struct graph_target *t)
{
	static const struct {
		const char *name;
		int64_t rows, keys, heads, kv_heads, head_dim, bias_heads;
		bool causal;
	} cases[] = {
		{ "attention of Z-Image", 1088, 1088, 30, 30, 128, 0, false },
		{ "causal attention of Qwen3, grouped", 64, 64, 32, 8, 128, 0, true },
		{ "causal attention of CLIP", 77, 77, 12, 12, 64, 0, true },
		{ "attention of T5 with its bias", 512, 512, 64, 64, 64, 64, false },
		{ "cross attention of SD 1.5", 4096, 77, 8, 8, 40, 0, false },
		{ "attention of an autoencoder", 4096, 4096, 1, 1, 512, 0, false },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const int64_t width = cases[i].heads * cases[i].head_dim, kv = cases[i].kv_heads * cases[i].head_dim;
		struct graph_attention s = { .rows = cases[i].rows,
			.keys = cases[i].keys,
			.heads = cases[i].heads,
			.kv_heads = cases[i].kv_heads,
			.head_dim = cases[i].head_dim,
			.q_row = width,
			.q_head = cases[i].head_dim,
			.k_row = kv,
			.k_head = cases[i].head_dim,
			.v_row = kv,
			.v_head = cases[i].head_dim,
			.out_row = width,
			.out_head = cases[i].head_dim,
			.bias_heads = cases[i].bias_heads,
			.bias_row = cases[i].keys,
			.bias_head = cases[i].rows * cases[i].keys,
			.causal = cases[i].causal };
		struct graph_plan plan;
		char why[400] = "";

		graph_plan_attention(t, &s, WORKSPACE, &plan, why, sizeof why);
		report(d, cases[i].name, &plan, true, why);
	}
}

/* Arguments: the devices ("sm_90"); none: sm_90 alone, since each takes cuDNN many seconds. */
int main(int argc, char **argv)
{
	if (cudnnGetVersion() < 91100) {
		printf("skip - cudnn %zu: describing a device takes 9.11\n", cudnnGetVersion());
		return 0;
	}
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		struct graph_target t = { 0 };
		bool wanted = argc < 2 && devices[i].version == 900;
		cudnnStatus_t s;

		for (int j = 1; j < argc; j++)
			wanted = wanted || strcmp(argv[j], devices[i].name) == 0;
		if (!wanted)
			continue;
		s = describe(&devices[i], &t.property);
		if (s) {
			printf("skip - cudnn %zu: %s cannot be described: %s\n", cudnnGetVersion(), devices[i].name,
				cudnnGetErrorString(s));
			continue;
		}
		test_convs(&devices[i], &t);
		test_attention(&devices[i], &t);
		cudnnBackendDestroyDescriptor(t.property);
	}
	return check_result();
}
