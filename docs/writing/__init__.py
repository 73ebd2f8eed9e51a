"""Programs that write measured numbers and figures into the documents."""
