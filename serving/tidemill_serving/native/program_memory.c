/* Where a program's values and forms lie in the memory of a run: what is not needed at once shares it. */
#include <stdlib.h>

#include "program.h"

typedef struct {
  size_t offset, size, end; /* until which step it is in use */
} Piece;

typedef struct {
  Piece *pieces;
  int64_t num_pieces;
  size_t row_bytes;
} Room;

/* Memory that nothing uses any more at the step `group`, or new memory. */
static size_t take_room(Room *room, size_t bytes, int64_t group, int64_t end) {
  const size_t size = (bytes + 63) / 64 * 64;
  for (int64_t each = 0; each < room->num_pieces; each++) {
    Piece *piece = &room->pieces[each];
    if (piece->size != size || piece->end >= (size_t)group) continue;
    piece->end = (size_t)end;
    return piece->offset;
  }
  room->pieces[room->num_pieces++] = (Piece){room->row_bytes, size, (size_t)end};
  room->row_bytes += size;
  return room->row_bytes - size;
}

/* Steps that run side by side have nothing in common: what the first of them leaves is free only behind the last. */
static void place_all(Program *program, Room *room) {
  int64_t group = 0;
  for (int64_t index = 0; index < program->num_steps; index++) {
    const Step *step = &program->steps[index];
    if (!step->is_beside) group = index;
    for (int64_t each = 0; each < MOST_OUTPUTS; each++) {
      if (step->outputs[each] == NONE) continue;
      ProgramValue *value = &program->values[step->outputs[each]];
      if (value->output == NONE)
        value->offset = take_room(room, (size_t)value->width * sizeof(float), group, value->last_reader);
      for (int64_t form = value->first_form; form != NONE; form = program->forms[form].next) {
        Form *made = &program->forms[form];
        if (!made->is_made_with_value) continue;
        made->offset = take_room(room, scratch_bytes(&made->matrix, 1), group, made->last_reader);
      }
    }
    if (step->kind != PRODUCT) continue;
    Form *read = &program->forms[step->form];
    if (!read->is_made_with_value && read->first_reader == index)
      read->offset = take_room(room, scratch_bytes(&read->matrix, 1), group, read->last_reader);
  }
  program->row_bytes = room->row_bytes;
}

const char *place_values(Program *program) {
  Room room = {calloc((size_t)(program->num_values + program->num_forms), sizeof *room.pieces), 0, 0};
  if (room.pieces == NULL) return "there is no memory for the program";
  place_all(program, &room);
  free(room.pieces);
  return NULL;
}
