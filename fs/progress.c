/* progress: see progress.h. */
#include "fs/progress.h"

#include <string.h>
#include <unistd.h>

enum { BAR_CELLS = 20 };

struct progress progress_on(FILE *file)
{
	return (struct progress){ isatty(fileno(file)) ? file : NULL };
}

void progress_print(const struct engine_progress *p, char out[PROGRESS_LEN])
{
	char bar[BAR_CELLS * 3 + 1] = "";
	int done = p->steps ? BAR_CELLS * p->step / p->steps : 0;
	int len;

	if (p->stage != STAGE_STEP || p->steps < 1) {
		snprintf(out, PROGRESS_LEN, "%s", stage_name(p->stage));
		return;
	}
	for (int i = 0; i < BAR_CELLS; i++)
		strcat(bar, i < done ? "\xe2\x96\x93" : "\xe2\x96\x91");
	len = snprintf(out, PROGRESS_LEN, "step %d/%d %s %d %%", p->step, p->steps, bar, 100 * p->step / p->steps);
	if (p->step > 0 && len > 0 && len < PROGRESS_LEN) /* before the first step ends nothing is known */
		snprintf(out + len, PROGRESS_LEN - (size_t)len, " eta %.0f s",
			p->seconds[STAGE_STEP] / p->step * (p->steps - p->step));
}

void progress_say(struct progress *bar, const char *text)
{
	if (!bar->file)
		return;
	fprintf(bar->file, "\r\033[K%s", text);
	fflush(bar->file);
}

void progress_show(struct progress *bar, const struct engine_progress *p)
{
	char text[PROGRESS_LEN];

	progress_print(p, text);
	progress_say(bar, text);
}

void progress_clear(struct progress *bar)
{
	progress_say(bar, "");
}
