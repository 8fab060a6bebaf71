"""How the drawn-object finder of the lexical tower is trained: drawings with boxes, targets, the loop, measures."""
