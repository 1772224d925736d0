-- compatible_from: 0001
select;
