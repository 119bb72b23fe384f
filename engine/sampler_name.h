/* sampler_name: the names of samplers, in diffusers', A1111's and ComfyUI's spelling, to one canonical name.
 *
 * Which of them a model can run is its family's business.  Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_SAMPLER_NAME_H
#define PROMPTFS_ENGINE_SAMPLER_NAME_H

#include "kernels/status.h"

enum { SAMPLER_NAME_LEN = 32 };

/* "DPM++ 2M" with scheduler "Karras" (may be NULL), "dpm++_2m_karras" and "dpmpp-2m karras" all give "dpm++_2m_karras":
 * case, spaces, "_" and "-" do not count.  Unknown names are STATUS_INVALID. */
enum status sampler_name_find(const char *name, const char *scheduler, char out[SAMPLER_NAME_LEN]);

#endif
