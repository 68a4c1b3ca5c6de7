// The list of images.

import { takeDrops } from "./drop.js";

takeDrops();
