/* log and progress: levels, files, the recent lines, and what a bar shows. */
#include "fs/log.h"

#include <string.h>
#include <unistd.h>

#include "fs/progress.h"
#include "tests/unit/check.h"

static size_t file_text(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "r");
	size_t len = f ? fread(out, 1, size - 1, f) : 0;

	if (f)
		fclose(f);
	out[len] = 0;
	return len;
}

static void check_log(void)
{
	static char text[100000];
	char path[] = "/tmp/promptfs-log-XXXXXX", tail[64];
	struct bytes recent = { 0 };
	int fd = mkstemp(path);

	close(fd);
	CHECK("a file that cannot be", log_open("info", "/nonexistent/log", LOG_SINK_STDERR) == STATUS_IO &&
					       strstr(status_text(), "/nonexistent/log"));
	CHECK("open", log_open("warn", path, LOG_SINK_STDERR) == STATUS_OK && log_level() == LOG_LEVEL_WARN);
	log_error("lost %d", 1);
	log_info("quiet");
	log_debug("quieter");
	file_text(path, text, sizeof text);
	CHECK("levels", strstr(text, " error lost 1\n") && !strstr(text, "quiet"));
	log_warn("one\nerror two\x1b[31m");
	file_text(path, text, sizeof text);
	CHECK("a line is one line", strstr(text, " warn one error two [31m\n"));
	for (int i = 0; i < 3000; i++)
		log_info("line %d of many, to fill the memory of recent lines", i);
	CHECK("recent: bounded", log_recent(&recent) == STATUS_OK && recent.len <= 64 << 10 && recent.len > 60 << 10);
	snprintf(tail, sizeof tail, "line 2999 of many, to fill the memory of recent lines\n");
	CHECK("recent: the newest whole",
		recent.len > strlen(tail) && strcmp((char *)recent.data + recent.len - strlen(tail), tail) == 0);
	CHECK("recent: begins with a whole line", strncmp((char *)recent.data, "20", 2) == 0);
	CHECK("recent: infos count, debug lines do not", !strstr((char *)recent.data, "quieter"));
	bytes_free(&recent);
	log_open("trace", path, LOG_SINK_STDERR);
	log_trace("deep");
	file_text(path, text, sizeof text);
	CHECK("opened again: the new level, the old lines", strstr(text, " trace deep\n") && strstr(text, "lost 1"));
	log_close();
	unlink(path);
}

static void check_progress(void)
{
	struct engine_progress p = { .stage = STAGE_TEXT };
	char text[PROGRESS_LEN];

	progress_print(&p, text);
	CHECK("a stage without steps", strcmp(text, "text") == 0);
	p = (struct engine_progress){ .stage = STAGE_STEP, .step = 0, .steps = 1000 };
	progress_print(&p, text);
	CHECK("the first step has no eta",
		strncmp(text, "step 0/1000 ", 12) == 0 && strstr(text, " 0 %") && !strstr(text, "eta"));
	p = (struct engine_progress){ .stage = STAGE_STEP, .step = 3, .steps = 8, .seconds = { [STAGE_STEP] = 1.2 } };
	progress_print(&p, text);
	CHECK("a step", strncmp(text, "step 3/8 ", 9) == 0 && strstr(text, " 37 % eta 2 s"));
	p.steps = p.step = 999;
	progress_print(&p, text);
	CHECK("the last step fits", strlen(text) < PROGRESS_LEN - 1 && strstr(text, "100 % eta 0 s"));
}

int main(void)
{
	check_log();
	check_progress();
	return check_result();
}
