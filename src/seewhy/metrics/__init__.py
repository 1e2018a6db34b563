"""Can an explanation be trusted: functions of maps, images and scores, for the maps of any library."""
